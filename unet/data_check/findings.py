"""Errors, warnings and notes about a data set, each with the files concerned and with advice."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from unet.data.image_range import MAX_SPACING_RATIO, format_counts, range_warnings, undeclared_nodata
from unet.data.label_map import format_values
from unet.data.source import SPLITS
from unet.data_check.file_facts import QUARTER_TURNS, ImageFacts, ItemFacts, MaskFacts
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.mask_values import find_levels
from unet.data_check.survey import UNSPLIT, Survey
from unet.labels import IGNORE_INDEX
from unet.network.geometry import size_range, times

ERROR, WARNING, NOTE = "error", "warning", "note"
MAX_SIZES = 3  # number of pairs of sizes of image and mask that are errors of their own


@dataclass(frozen=True)
class Finding:
    """An error, a warning or a note.

    Attributes:
        kind: ``error``: training would stop; ``warning``: training would run, possibly with worse results; ``note``.
        text: the problem and the remedy.
        files: the files concerned.
    """

    kind: str
    text: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRequirements:
    """The batch size, the number of samples per epoch and the smallest image size of the configured training."""

    batch_size: int
    samples_per_epoch: int | None
    min_size: int


def collect_findings(survey: Survey, training: TrainingRequirements | None = None) -> list[Finding]:
    """Return the findings of all checks, errors first; ``training``: also check what the training requires."""
    findings = [finding for check in CHECKS for finding in check(survey)]
    if training is not None:
        findings += find_unmet_requirements(survey, training)
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.kind))


def files_finding(kind: str, text: str, files: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding about files, if there are any."""
    if names := tuple(files):
        yield Finding(kind, text, names)


def find_unmet_requirements(survey: Survey, training: TrainingRequirements) -> Iterator[Finding]:
    """Find requirements of the configured training that the data set does not meet."""
    samples = training.samples_per_epoch or len(survey.splits.get("train", []))
    if samples < training.batch_size and UNSPLIT not in survey.splits:
        text = f"{samples} training images are fewer than data.batch_size={training.batch_size}"
        yield Finding(ERROR, f"{text}; set data.samples_per_epoch to draw several crops of each, or a smaller batch")
    small = [
        item.name for item, image in survey.images if item.split != "train" and min(image.size) < training.min_size
    ]
    text = f"images of less than {training.min_size} pixels along an axis are too small for model.depth"
    yield from files_finding(ERROR, f"{text}; use a smaller depth or larger images", small)


def find_unreadable(survey: Survey) -> Iterator[Finding]:
    """Find files that cannot be read, have no partner, or contain infinite values or no data."""
    for text in survey.errors:
        yield Finding(ERROR, text)
    files: dict[str, list[str]] = {}
    for item in survey.facts:
        for error in item.errors:
            name, _, problem = error.partition(": ")
            files.setdefault(problem, []).append(name)
    for problem, names in files.items():
        if len(names) == 1:
            yield Finding(ERROR, f"{names[0]}: {problem}")
        else:
            yield Finding(ERROR, f"{len(names)} files: {problem}", tuple(names))
    infinite = [item.name for item, image in survey.images if image.num_infinite]
    yield from files_finding(ERROR, "images contain infinite values; replace them or remove the images", infinite)
    options = survey.source.read_options
    found = undeclared_nodata((item.name, image) for item, image in survey.images)
    if found and options.nodata is None and options.declared_nodata:
        yield Finding(ERROR, found[0], tuple(found[1]))
    empty = [item.name for item, image in survey.images if image.num_missing == math.prod(image.size)]
    yield from files_finding(WARNING, "images have no data at all (NaN or nodata), so they do not contribute", empty)
    missing = [item.name for item, image in survey.images if 0 < image.num_missing < math.prod(image.size)]
    share = sum(image.num_missing for _, image in survey.images) / max(
        1, sum(math.prod(image.size) for _, image in survey.images)
    )
    text = f"images have pixels without data (NaN or nodata), {share:.1%} of all: labels there are ignored"
    yield from files_finding(NOTE, text, missing)


def find_size_mismatches(survey: Survey) -> Iterator[Finding]:
    """Find images and masks of different sizes, and images with an EXIF orientation."""
    rotated, ambiguous = [], []
    different: dict[str, list[str]] = {}
    for item in survey.facts:
        image, mask = item.image, item.mask
        if image is None or mask is None:
            continue
        if image.size == mask.size:
            ambiguous += [item.name] if image.format.orientation != mask.format.orientation else []
        elif matches_after_rotation(image, mask):
            rotated.append(item.name)
        else:
            sizes = f"its mask is {times(mask.size)}, the image {times(image.size)}; expected the same size"
            different.setdefault(sizes, []).append(item.name)
    if len(different) > MAX_SIZES:
        names = [name for names in different.values() for name in names]
        yield Finding(ERROR, f"{len(names)} images do not have the size of their masks", tuple(names))
    else:
        for sizes, names in different.items():
            text = f"{names[0]}: {sizes}" if len(names) == 1 else f"{len(names)} images: {sizes}"
            yield Finding(ERROR, text, tuple(names) if len(names) > 1 else ())
    text = "images have the size of their masks only after the EXIF rotation, which training does not apply"
    yield from files_finding(ERROR, f"{text}; fix=OUT writes rotated images", rotated)
    text = (
        "images or masks have an EXIF orientation, which training does not apply: it uses the pixels as stored. "
        "Look at one pair: if the mask was drawn on the image as viewers show it, rotate the image first"
    )
    yield from files_finding(WARNING, text, ambiguous)


def matches_after_rotation(image: ImageFacts, mask: MaskFacts) -> bool:
    """Return whether image and mask have the same size after the EXIF rotation."""
    quarters = (image.format.orientation in QUARTER_TURNS) != (mask.format.orientation in QUARTER_TURNS)
    return quarters and image.size == mask.size[::-1]


def find_odd_axes_and_channels(survey: Survey) -> Iterator[Finding]:
    """Find masks and images whose number of axes or of channels differs from that of most."""
    odd = [item.name for item, mask in survey.masks if len(mask.size) != survey.spatial_dims]
    text = f"masks do not have the {survey.spatial_dims} axes of most masks; divide the data set"
    yield from files_finding(ERROR, text, odd)
    counts = format_counts(image.channels for _, image in survey.images)
    remedy = "; 'data.source.mode=RGB' (or L) converts them" if survey.can_convert else ""
    odd = [item.name for item, image in survey.images if image.channels != survey.channels]
    text = f"images differ in their number of channels: {counts}; expected one number{remedy}"
    yield from files_finding(ERROR, text, odd)
    rgba = [item.name for item, image in survey.images if image.format.name.endswith("RGBA") and survey.channels == 4]
    text = "images have a fourth channel (transparency), which the network will use; 'data.source.mode=RGB' removes it"
    yield from files_finding(NOTE, text, rgba)


def find_unmapped_values(survey: Survey) -> Iterator[Finding]:
    """Find values of the masks that do not match the configuration."""
    encoding = survey.encoding
    lossy = [mask_name(item) for item, mask in survey.masks if mask.lossy]
    text = "masks are lossy (JPEG, or converted from it), so their values are blurred; fix=OUT restores them"
    if any(isinstance(key, tuple) for key in survey.encoding.meaning):
        text = f"{text}, but a blurred edge may look like a class: if so, map the true colours with data.source.values"
    yield from files_finding(ERROR if encoding.lossy else NOTE, text, lossy)
    if survey.palette_conflicts:
        index, colors = next(iter(survey.palette_conflicts.items()))
        several = " or ".join(format_values([color]) for color in colors)
        text = (
            f"masks have different palettes, in which index {index} is {several}, so the indices are no labels; map "
            f"the colours with {shlex.quote(encoding.overrides[0])} and check the names"
        )
        files = (mask_name(item) for item, mask in survey.masks if mask.palette and index in mask.palette)
        yield Finding(ERROR, text, tuple(files))
        return
    if encoding.alternatives:
        advice = ", or ".join(f"{shlex.quote(override)} if {text}" for text, override in encoding.alternatives.items())
        levels = [key for key in (find_levels(survey.counts) if encoding.lossy else survey.counts) if key != 0]
        present = format_values(sorted(key for key in levels if isinstance(key, int | float)))
        several = any(IGNORE_INDEX in mask.counts and len(mask.counts) > 2 for _, mask in survey.masks)
        text = "some masks have the values 0 and 255, others 0, 1 ...: 255 may be a class or unlabelled"
        if several:
            text = f"masks have the grey levels 0, {present}, which may be classes, edges or unlabelled"
        text = f"{text}; add {advice}"
        files = (mask_name(item) for item, mask in survey.masks if IGNORE_INDEX in mask.counts)
        yield Finding(ERROR, text, tuple(files))
    elif encoding.has_instance_ids:
        text = f"masks number their objects ({len(survey.counts)} values), expected classes"
        yield Finding(ERROR, f"{text}; fix=OUT makes all values except 0 one class")
    elif unknown := encoding.unknown:
        files = (mask_name(item) for item, mask in survey.masks if any(key in mask.counts for key in unknown))
        text = (
            f"masks contain {format_values(unknown)}, which {'is' if len(unknown) == 1 else 'are'} none of the "
            f"{len(encoding.classes)} classes ({', '.join(encoding.classes)}); correct the masks, or map the values "
            f"with data.source.values"
        )
        yield Finding(ERROR, text, tuple(files))
    for override in encoding.overrides:
        if override.startswith("data.source.values"):
            kind = ERROR if survey.has_classes else NOTE
            mapped = survey.labels.label_of_value.keys()
            files = (mask_name(item) for item, mask in survey.masks if not mask.counts.keys() <= mapped)
            text = f"masks need {shlex.quote(override)}; check that each value has the right name"
            yield Finding(kind, text, tuple(files) if kind == ERROR else ())


def mask_name(item: ItemFacts) -> str:
    """Return the name of an item's mask: its path, if it is a file of its own."""
    return str(item.files.mask) if item.files and item.files.shapes is None else item.name


def find_missing_labels(survey: Survey) -> Iterator[Finding]:
    """Find masks without foreground and classes that never occur."""
    if not survey.encoding.meaning:
        return
    first = survey.encoding.classes[0]
    present = {item.name: {name for name, n in survey.mask_classes(mask).items() if n} for item, mask in survey.masks}
    ignored = [name for name, classes in present.items() if classes == {IGNORE}]
    yield from files_finding(WARNING, "masks are ignored everywhere, so they do not contribute to training", ignored)
    empty = [name for name, classes in present.items() if first in classes <= {first, IGNORE}]
    yield from files_finding(NOTE, f"{len(empty)} of {len(present)} masks contain only {first}", empty)
    for split, facts in survey.splits.items():
        counts = survey.class_counts(facts)
        absent = [name for name in survey.encoding.classes if not counts[name]]
        if len(absent) == len(survey.encoding.classes):
            yield Finding(ERROR, f"{split} has no labelled pixel: all are ignored")
        elif split == "train" and len(absent) == len(survey.encoding.classes) - 1:
            (only,) = set(survey.encoding.classes) - set(absent)
            text = f"train has only {only}, so nothing can be learned; check the masks and data.source.values"
            yield Finding(WARNING, text)
        elif absent:
            kind = WARNING if split in SPLITS[:2] else NOTE
            yield Finding(kind, f"{split} has no pixel of {', '.join(absent)}")


def find_duplicates(survey: Survey) -> Iterator[Finding]:
    """Find images with the same pixels; duplicates across splits inflate the scores."""
    groups: dict[bytes, list[ItemFacts]] = {}
    for item, image in survey.images:
        if image.low < image.high:
            groups.setdefault(image.digest, []).append(item)
    duplicates = [group for group in groups.values() if len(group) > 1]
    across = [group for group in duplicates if len({item.split for item in group}) > 1]
    within = [group for group in duplicates if group not in across]
    contradictory = [group for group in duplicates if len({item.mask.digest for item in group if item.mask}) > 1]
    text = "the same images are in several splits, so scores will be too high; fix=OUT writes each only once"
    yield from files_finding(WARNING, text, map(format_duplicates, across))
    yield from files_finding(WARNING, "the same images are in a split more than once", map(format_duplicates, within))
    yield from files_finding(WARNING, "equal images have different masks", map(format_duplicates, contradictory))


def format_duplicates(group: Iterable[ItemFacts]) -> str:
    """Return ``images/a.png (train) = images/b.png (val)``."""
    return " = ".join(f"{item.name} ({item.split})" for item in group)


def find_range_differences(survey: Survey) -> Iterator[Finding]:
    """Find images that differ in type or range of values."""
    for text, files in range_warnings((item.name, image) for item, image in survey.images):
        yield Finding(WARNING, text, tuple(files))
    constant = (item.name for item, image in survey.images if image.low == image.high)
    yield from files_finding(WARNING, "images are constant: all pixels have one value", constant)


def find_grid_differences(survey: Survey) -> Iterator[Finding]:
    """Find NIfTI images whose axes have other directions, or whose voxels have another size, than those of most."""
    images = [(item.name, image.format) for item, image in survey.images if image.format.axes]
    if not images:
        return
    usual = Counter(grid.axes for _, grid in images).most_common(1)[0][0]
    text = (
        f"images differ in the directions of their axes: {format_counts(grid.axes for _, grid in images)}; training "
        f"uses the axes as stored, so reorient them, with nibabel.as_closest_canonical"
    )
    yield from files_finding(WARNING, text, [name for name, grid in images if grid.axes != usual])
    spacings = np.array([grid.spacing for _, grid in images])
    ratios = np.exp(np.abs(np.log(spacings / np.median(spacings, 0))).max(1))
    low, high = spacings.min(0), spacings.max(0)
    sizes = size_range(low.tolist(), high.tolist())
    text = f"images differ in the size of their voxels: {sizes} mm; training ignores it, so resample them to one size"
    odd = [name for (name, _), ratio in zip(images, ratios.tolist(), strict=True) if ratio > MAX_SPACING_RATIO]
    yield from files_finding(WARNING, text, odd)


CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    find_unreadable,
    find_size_mismatches,
    find_odd_axes_and_channels,
    find_unmapped_values,
    find_missing_labels,
    find_duplicates,
    find_range_differences,
    find_grid_differences,
)
