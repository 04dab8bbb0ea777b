"""What to try first on a data set, from the sizes of its images and objects and from its classes' shares.

Rules of thumb, each with its reason: the trial sweep they end in is there to prove them wrong.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unet.analysis.receptive_field import receptive_fields
from unet.data.folder import Folder
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.survey import Survey
from unet.network.model import SMALL_BOTTLENECK
from unet.task.losses import class_weights

CROPS = {1: ("sequence", 256, 4096), 2: ("picture", 128, 512), 3: ("volume", 32, 96)}
"""What a crop is called in ``data.crop``, its least and its largest size, by the number of spatial axes."""

FEW, DRAWS = 64, 128
"""Below how many training images an epoch draws how many crops."""

DEPTHS = (2, 3, 4, 5)
THIN, SMALL = 4, 24
"""Samples across below which a class is thin, and samples along below which its objects are small."""

LARGE_IMAGE = {1: 2**20, 2: 2**21, 3: 2**22}
"""Samples of an image above which evaluation goes tile by tile, by the number of spatial axes."""

TILES = {1: 2**16, 2: 1024, 3: 128}


@dataclass(frozen=True)
class Structure:
    """What objects are like, and which operators are worth a trial for them; the reasons are in docs/operators.md.

    Attributes:
        name: what they are.
        fits: whether objects of this width and extent are like that; see :class:`Shapes`.
        down, up: operators to compare, the default first.
        reason: why these.
    """

    name: str
    fits: Callable[[float, float], bool]
    down: tuple[str, ...]
    up: tuple[str, ...]
    reason: str


STRUCTURES = (
    Structure(
        "thin",
        lambda width, extent: width < THIN and extent >= 2 * width,
        ("max", "pixel_unshuffle", "haar"),
        ("transposed", "sapa"),
        "max forgets where in a window it was and avg fades what is thin; pixel_unshuffle and haar keep every sample, "
        "sapa takes edges from the skip",
    ),
    Structure(
        "small",
        lambda width, extent: extent < SMALL,
        ("max", "avg", "pixel_unshuffle"),
        ("transposed", "unpool"),
        "max drops what is small and dark, avg keeps it in proportion to its area, pixel_unshuffle keeps every sample; "
        "unpool returns maxima to where they were",
    ),
    Structure(
        "large",
        lambda width, extent: True,
        ("max", "strided", "max_blur"),
        ("transposed", "linear"),
        "objects outlast a few stages: strided learns what to keep, max_blur lets shifts through more evenly, linear "
        "cannot paint a checkerboard",
    ),
)
"""The first that fits is taken."""


@dataclass(frozen=True)
class Suggestion:
    """One value to set: Attributes: overrides, without quotes (none: nothing has to be set); the reason."""

    overrides: tuple[str, ...]
    reason: str


def data_structure(survey: Survey) -> Structure | None:
    """What the objects of the finest class are like; None where there are none."""
    kinds = [STRUCTURES.index(kind) for kind in (class_structure(survey, name) for name in survey.foreground) if kind]
    return STRUCTURES[min(kinds)] if kinds else None


def class_structure(survey: Survey, name: str) -> Structure | None:
    """What the objects of a class are like; None where none were measured."""
    shapes = survey.shapes[name]
    if not len(shapes):
        return None
    return next(kind for kind in STRUCTURES if kind.fits(shapes.width, shapes.extent))


def suggest_settings(survey: Survey) -> list[Suggestion]:
    """What to set for a first trial."""
    found = [Suggestion(survey.encoding.overrides, "what the masks store")] if survey.encoding.overrides else []
    if not survey.images or not survey.masks:
        return found
    crop, depth = crop_and_depth(survey)
    return [
        *found,
        *suggest_size(survey, crop, depth),
        *suggest_sampling(survey),
        *suggest_weights(survey),
        *suggest_channels(survey),
    ]


def object_extent(survey: Survey) -> int:
    """Samples along the larger objects: nine in ten are no longer; 0 where none were measured."""
    extents = [extent for name in survey.foreground for extent in survey.shapes[name].extents]
    return round(float(np.quantile(extents, 0.9))) if extents else 0


def crop_and_depth(survey: Survey) -> tuple[int, int]:
    """A crop of twice the larger objects, as far as images reach, and the depth whose bottleneck sees as much."""
    _, least, most = CROPS[survey.spatial_dims]
    sides = [min(image.size) for _, image in survey.images]
    extent = object_extent(survey)
    wanted = max(2 * extent, least)
    within = max(float(np.median(sides)), least / 2)
    crop = 2 ** round(math.log2(max(min(wanted, within, most), 16)))
    possible = [depth for depth in DEPTHS if crop // 2**depth >= SMALL_BOTTLENECK and min(sides) >= 2**depth] or [1]
    seen = {depth: bottleneck_field(depth, survey.spatial_dims) for depth in possible}
    return crop, next((depth for depth in possible if seen[depth] >= 2 * extent), possible[-1])


def bottleneck_field(depth: int, spatial_dims: int) -> float:
    """Samples of the input along an axis that the bottleneck of the default network of this depth sees."""
    plain = {"in_channels": 1, "num_classes": 2, "spatial_dims": spatial_dims, "depth": depth}
    return min(receptive_fields(plain).encoder[-1])


def suggest_size(survey: Survey, crop: int, depth: int) -> Iterator[Suggestion]:
    kind, _, _ = CROPS[survey.spatial_dims]
    extent = object_extent(survey)
    objects = f"objects are up to {extent} samples long (nine in ten)" if extent else "no objects were measured"
    side = int(np.median([min(image.size) for _, image in survey.images]))
    reason = f"crops of {crop}: {objects}, the median image is {side} along its shorter side"
    # Only the folder's configuration has the key; other data sets have crops of their own.
    yield Suggestion((f"data.crop.{kind}={crop}",) if isinstance(survey.source, Folder) else (), reason)
    field = bottleneck_field(depth, survey.spatial_dims)
    whole = "an object and as much around it" if field >= 2 * extent else "less than twice the larger objects"
    reason = (
        f"depth {depth}: the bottleneck sees {field:.0f} samples, {whole}; of a crop it has {crop // 2**depth} an axis"
    )
    yield Suggestion((f"model.depth={depth}",), reason)
    largest = max(math.prod(image.size) for _, image in survey.images)
    if largest > LARGE_IMAGE[survey.spatial_dims]:
        tile = ",".join([str(TILES[survey.spatial_dims])] * survey.spatial_dims)
        yield Suggestion((f"data.eval_tile=[{tile}]",), f"images of up to {largest:,} samples are evaluated by tiles")


def suggest_sampling(survey: Survey) -> Iterator[Suggestion]:
    """How many crops an epoch draws, and from where."""
    training = survey.splits.get("train", survey.facts)
    if isinstance(survey.source, Folder) and len(training) < FEW:
        yield Suggestion((f"data.samples_per_epoch={DRAWS}",), f"{len(training)} training images are few")
    shares = [survey.mask_classes(one.mask) for one in training if one.mask]
    empty = sum(1 for share in shares if sum(bool(count) for name, count in share.items() if name != IGNORE) < 2)
    if shares and 2 * empty >= len(shares) and len(survey.foreground) > 0:
        yield Suggestion(("data.sampling=foreground",), f"{empty} of {len(shares)} training masks hold one class alone")


def suggest_weights(survey: Survey) -> Iterator[Suggestion]:
    """Class weights, where a class is ten times as rare as the median one."""
    counts = survey.class_counts(survey.splits.get("train", survey.facts))
    held = [counts[name] for name in survey.encoding.classes]
    present = sorted(count for count in held if count)
    if len(present) < 2:
        return
    rarest = survey.encoding.classes[held.index(present[0])]
    share = present[0] / sum(held)
    if 10 * present[0] >= float(np.median(present)):
        yield Suggestion((), f"no class weights: the rarest class, {rarest}, has {share:.1%} of the pixels")
        return
    weights = ", ".join(f"{weight:.2g}" for weight in class_weights("sqrt_median_frequency", held) or [])
    reason = (
        f"{rarest} has {share:.2%} of the pixels: weights {weights}; the adjustment keeps what is rare from being "
        f"predicted too often"
    )
    yield Suggestion(("data.class_weights=sqrt_median_frequency", "loss.logit_adjustment=true"), reason)


def suggest_channels(survey: Survey) -> Iterator[Suggestion]:
    """Suggest one number of channels, where images differ."""
    kinds = {image.channels for _, image in survey.images}
    if len(kinds) > 1 and survey.can_convert and isinstance(survey.source, Folder):
        yield Suggestion(("data.source.mode=RGB",), "one number of channels for all images")


def format_commands(given: Sequence[str], found: Sequence[Suggestion], kind: Structure) -> tuple[str, str]:
    """The command of a training with the suggestions, and that of a trial sweep over operators for such objects.

    What the user gave stands, and is not suggested again.
    """
    keys = {override.partition("=")[0] for override in given}
    chosen = [override for suggestion in found for override in suggestion.overrides]
    chosen = [*given, *(override for override in chosen if override.partition("=")[0] not in keys)]
    swept = [f"model.down={','.join(kind.down)}", f"model.up={','.join(kind.up)}", "trainer.max_epochs=5"]
    swept = [override for override in swept if override.partition("=")[0] not in keys]
    return f"python train.py {shlex.join(chosen)}", f"python train.py -m {shlex.join([*chosen, *swept])}"
