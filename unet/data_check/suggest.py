"""Suggested settings, from the sizes of images and objects and the frequencies of the classes.

These are rules of thumb, each with its reason; the suggested sweep tests them.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unet.analysis.receptive_field import receptive_fields
from unet.data.folder import Folder
from unet.data.source import Item
from unet.data.windows import divide_item
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.shapes import MAX_SAMPLES
from unet.data_check.survey import Survey
from unet.errors import UserError
from unet.network.model import SMALL_BOTTLENECK
from unet.runs.cli import program_name
from unet.task.class_weights import class_weights

CROPS = {1: ("sequence", 256, 4096), 2: ("picture", 128, 512), 3: ("volume", 32, 96)}
"""The key of the crop in ``data.crop``, its smallest and its largest size, by the number of spatial axes."""

FEW_IMAGES, SAMPLES_PER_EPOCH = 64, 128  # the number of samples per epoch for fewer than that many training images
FEW_OBJECTS = 0.5  # the mean number of objects in a crop below which crops are drawn around them
DEPTHS = (2, 3, 4, 5)

THIN_WIDTH, SMALL_EXTENT = 4, 24
"""The width in pixels below which a class is thin, and the extent below which its objects are small."""

LARGE_IMAGE = {1: 2**20, 2: 2**21, 3: 2**22}
"""Pixels of an image above which evaluation uses tiles, by the number of spatial axes."""

TILES = {1: 2**16, 2: 1024, 3: 128}

HUGE_IMAGE = 2**26
"""Pixels of an image above which it is read in windows, if its files allow that."""

WINDOWS = {1: 2**20, 2: 2048, 3: 256}


@dataclass(frozen=True)
class Structure:
    """A kind of objects, and the operators worth a trial for them; docs/operators.md has the reasons.

    Attributes:
        name: the kind.
        matches: whether objects of this width and extent are of this kind; see :class:`Shapes`.
        down, up: operators to compare, the default first.
        reason: the reason for these operators.
    """

    name: str
    matches: Callable[[float, float], bool]
    down: tuple[str, ...]
    up: tuple[str, ...]
    reason: str


STRUCTURES = (
    Structure(
        "thin",
        lambda width, extent: width < THIN_WIDTH and extent >= 2 * width,
        ("max", "pixel_unshuffle", "haar"),
        ("transposed", "sapa"),
        "max discards positions within a window and avg blurs thin structures; pixel_unshuffle and haar keep every "
        "pixel, sapa takes edges from the skip",
    ),
    Structure(
        "small",
        lambda width, extent: extent < SMALL_EXTENT,
        ("max", "avg", "pixel_unshuffle"),
        ("transposed", "unpool"),
        "max removes small dark objects, avg keeps them in proportion to their area, pixel_unshuffle keeps every "
        "pixel; unpool restores the positions of maxima",
    ),
    Structure(
        "large",
        lambda width, extent: True,
        ("max", "strided", "max_blur"),
        ("transposed", "linear"),
        "objects survive several downsampling steps: strided learns what to keep, max_blur aliases less, linear "
        "produces no checkerboard",
    ),
)
"""The kinds of objects; the first that matches is used."""


@dataclass(frozen=True)
class Suggestion:
    """Overrides to set, without quotes (none: the default is right), and the reason."""

    overrides: tuple[str, ...]
    reason: str


def data_structure(survey: Survey) -> Structure | None:
    """Return the kind of the objects of the finest class; None if there are no objects."""
    kinds = [STRUCTURES.index(kind) for kind in (class_structure(survey, name) for name in survey.foreground) if kind]
    return STRUCTURES[min(kinds)] if kinds else None


def class_structure(survey: Survey, name: str) -> Structure | None:
    """Return the kind of the objects of a class; None if none were measured."""
    shapes = survey.shapes[name]
    return next(kind for kind in STRUCTURES if kind.matches(shapes.width, shapes.extent)) if len(shapes) else None


def suggest_settings(survey: Survey) -> list[Suggestion]:
    """Return the settings for a first training."""
    overrides = survey.encoding.overrides
    encoding = [Suggestion(overrides, "the values of the masks")] if overrides else []
    if not survey.images or not survey.masks:
        return encoding
    checks = (suggest_size, suggest_sampling, suggest_weights, suggest_channels)
    return encoding + [suggestion for check in checks for suggestion in check(survey)]


def object_extent(survey: Survey) -> int:
    """Return the extent that nine in ten objects do not exceed, in pixels; 0 if none were measured."""
    extents = [extent for name in survey.foreground for extent in survey.shapes[name].extents]
    return round(float(np.quantile(extents, 0.9))) if extents else 0


def crop_and_depth(survey: Survey) -> tuple[int, int]:
    """Return a crop twice as long as nine in ten objects, limited by the images, and the depth whose field covers it.

    The depth is the smallest whose bottleneck has a receptive field as long as two objects.
    """
    _, smallest, largest = CROPS[survey.spatial_dims]
    sides = [min(image.size) for _, image in survey.images]
    extent = object_extent(survey)
    limit = max(float(np.median(sides)), smallest / 2)
    crop = 2 ** round(math.log2(max(min(max(2 * extent, smallest), limit, largest), 16)))
    possible = [depth for depth in DEPTHS if crop // 2**depth >= SMALL_BOTTLENECK and min(sides) >= 2**depth] or [1]
    large = [depth for depth in possible if bottleneck_field(depth, survey.spatial_dims) >= 2 * extent]
    return crop, (large or possible[-1:])[0]


def bottleneck_field(depth: int, spatial_dims: int) -> float:
    """Return the receptive field of the bottleneck of the default network of this depth, in pixels along an axis."""
    settings = {"in_channels": 1, "num_classes": 2, "spatial_dims": spatial_dims, "depth": depth}
    return min(receptive_fields(settings).encoder[-1])


def suggest_size(survey: Survey) -> Iterator[Suggestion]:
    """Suggest a crop, a depth and, for large images, a tile and the size of the windows to read."""
    kind = CROPS[survey.spatial_dims][0]
    crop, depth = crop_and_depth(survey)
    extent = object_extent(survey)
    objects = f"nine in ten objects are at most {extent} pixels long" if extent else "no objects were measured"
    side = int(np.median([min(image.size) for _, image in survey.images]))
    reason = f"crops of {crop}: {objects}, the shorter side of the median image is {side}"
    # Only the folder's configuration has the key; other data sets have crops of their own.
    yield Suggestion((f"data.crop.{kind}={crop}",) if isinstance(survey.source, Folder) else (), reason)
    field = bottleneck_field(depth, survey.spatial_dims)
    context = "at least" if field >= 2 * extent else "less than"
    reason = (
        f"depth {depth}: the receptive field of the bottleneck is {field:.0f} pixels, {context} twice the larger "
        f"objects; of a crop the bottleneck has {crop // 2**depth} per axis"
    )
    yield Suggestion((f"model.depth={depth}",), reason)
    largest = max(math.prod(image.size) for _, image in survey.images)
    if largest > LARGE_IMAGE[survey.spatial_dims]:
        tile = ",".join([str(TILES[survey.spatial_dims])] * survey.spatial_dims)
        yield Suggestion((f"data.eval_tile=[{tile}]",), f"images of up to {largest:,} pixels are evaluated in tiles")
    length = WINDOWS[survey.spatial_dims]
    if largest > HUGE_IMAGE and can_divide(survey, length):
        reason = "large images are read in windows, so that a crop does not need the whole image"
        yield Suggestion((f"data.source.window_size={length}",), reason)


def can_divide(survey: Survey, length: int) -> bool:
    """Return whether some items are longer than ``length`` along an axis, and all of those can be read in windows."""
    pairs = [(item.name, item.files) for item, image in survey.images if item.files and max(image.size) > length]
    try:
        return bool(pairs) and all(len(divide_item(Item(*pair), length)) > 1 for pair in pairs)
    except UserError:
        return False


def suggest_sampling(survey: Survey) -> Iterator[Suggestion]:
    """Suggest the number of samples per epoch and the sampling."""
    training = survey.splits.get("train", survey.facts)
    if isinstance(survey.source, Folder) and len(training) < FEW_IMAGES:
        yield Suggestion((f"data.samples_per_epoch={SAMPLES_PER_EPOCH}",), f"only {len(training)} training images")
    counts = [survey.mask_classes(item.mask) for item in training if item.mask]
    single = sum(1 for count in counts if sum(bool(n) for name, n in count.items() if name != IGNORE) < 2)
    if counts and 2 * single >= len(counts) and len(survey.foreground) > 0:
        yield Suggestion(("data.sampling=foreground",), f"{single} of {len(counts)} training masks have one class only")
    if isinstance(survey.source, Folder) and 0 < (objects := objects_per_crop(survey)) < FEW_OBJECTS:
        reason = f"a random crop has {objects:.2g} objects on average; a third of the crops then has one"
        yield Suggestion(("data.crop.foreground=0.33",), reason)


def objects_per_crop(survey: Survey) -> float:
    """Return the mean number of objects of all classes but the background in a random crop of the suggested size."""
    count = sum(len(survey.shapes[name]) for name in survey.foreground)
    measured = sum(min(math.prod(image.size), MAX_SAMPLES) for _, image in survey.images)
    return count * crop_and_depth(survey)[0] ** survey.spatial_dims / measured


def suggest_weights(survey: Survey) -> Iterator[Suggestion]:
    """Suggest class weights if a class is ten times as rare as the median class."""
    class_counts = survey.class_counts(survey.splits.get("train", survey.facts))
    counts = [class_counts[name] for name in survey.encoding.classes]
    present = sorted(count for count in counts if count)
    if len(present) < 2:
        return
    rarest = survey.encoding.classes[counts.index(present[0])]
    fraction = present[0] / sum(counts)
    if 10 * present[0] >= float(np.median(present)):
        yield Suggestion((), f"no class weights: the rarest class, {rarest}, has {fraction:.1%} of the pixels")
        return
    weights = ", ".join(f"{weight:.2g}" for weight in class_weights("sqrt_median_frequency", counts) or [])
    reason = (
        f"{rarest} has {fraction:.2%} of the pixels: weights {weights}; the logit adjustment prevents rare classes "
        f"from being predicted too often"
    )
    yield Suggestion(("data.class_weights=sqrt_median_frequency", "loss.logit_adjustment=true"), reason)


def suggest_channels(survey: Survey) -> Iterator[Suggestion]:
    """Suggest a mode if images differ in their number of channels."""
    numbers = {image.channels for _, image in survey.images}
    if len(numbers) > 1 and survey.can_convert and isinstance(survey.source, Folder):
        yield Suggestion(("data.source.mode=RGB",), "one number of channels for all images")


def format_commands(
    overrides: Sequence[str], suggestions: Sequence[Suggestion], structure: Structure
) -> tuple[str, str]:
    """Return the command of a training with the suggestions, and of a sweep over operators for such objects.

    A key that the user's ``overrides`` set is not suggested.
    """
    keys = {override.partition("=")[0] for override in overrides}
    settings = [override for suggestion in suggestions for override in suggestion.overrides]
    settings = [*overrides, *(override for override in settings if override.partition("=")[0] not in keys)]
    sweep = [f"model.down={','.join(structure.down)}", f"model.up={','.join(structure.up)}", "trainer.max_epochs=5"]
    sweep = [override for override in sweep if override.partition("=")[0] not in keys]
    program = program_name("train")
    return f"{program} {shlex.join(settings)}", f"{program} -m {shlex.join([*settings, *sweep])}"
