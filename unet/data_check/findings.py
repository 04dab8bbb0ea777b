"""What is wrong with a data set, or worth knowing: each a sentence with its files and with what to do."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from unet.data.files import format_values
from unet.data.source import SPLITS
from unet.data_check.file_facts import QUARTER_TURNS, ImageFacts, ItemFacts, MaskFacts
from unet.data_check.mask_encoding import IGNORE
from unet.data_check.survey import UNSPLIT, Survey
from unet.network.geometry import times

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: ``error``: a training would stop at it; ``warning``: it would not, and may be the worse for it; ``note``.
        text: what, and what to do.
        files: where.
    """

    kind: str
    text: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRequirements:
    """What a training asks of its data: images for a batch, unless it draws more, and a size of the images."""

    batch_size: int
    samples_per_epoch: int | None
    least_size: int


Check = Callable[[Survey], Iterator[Finding]]


def collect_findings(survey: Survey, training: TrainingRequirements | None = None) -> list[Finding]:
    """Return all that the checks find, errors first; ``training``: what it asks of the data, None: nothing."""
    found = [finding for check in CHECKS for finding in check(survey)]
    if training is not None:
        found += training_requirements(survey, training)
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.kind))


def files_finding(kind: str, text: str, files: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding about files, if there are any."""
    if names := tuple(files):
        yield Finding(kind, text, names)


def training_requirements(survey: Survey, training: TrainingRequirements) -> Iterator[Finding]:
    """Find what the configured training cannot do with this data."""
    draws = training.samples_per_epoch or len(survey.splits.get("train", []))
    if draws < training.batch_size and UNSPLIT not in survey.splits:
        text = f"{draws} training images are fewer than data.batch_size={training.batch_size}"
        remedy = "set data.samples_per_epoch to draw several crops of each, or a smaller batch"
        yield Finding(ERROR, f"{text}; {remedy}")
    small = [one.name for one, image in survey.images if one.split != "train" and min(image.size) < training.least_size]
    text = f"images of less than {training.least_size} samples along an axis are too small for model.depth"
    yield from files_finding(ERROR, f"{text}; take a smaller depth, or larger images", small)


def find_unreadable(survey: Survey) -> Iterator[Finding]:
    """Find files that cannot be read, belong to no pair, or hold NaN or infinite values."""
    for text in survey.problems + [fault for one in survey.facts for fault in one.faults]:
        yield Finding(ERROR, text)
    broken = [one.name for one, image in survey.images if image.not_finite]
    yield from files_finding(ERROR, "images hold NaN or infinite values; replace them or take the images out", broken)


def find_size_mismatches(survey: Survey) -> Iterator[Finding]:
    """Find images and masks of different sizes, and pictures that a camera's EXIF tag says to turn."""
    turned, unclear = [], []
    for one in survey.facts:
        image, mask = one.image, one.mask
        if image is None or mask is None:
            continue
        if image.size == mask.size:
            unclear += [one.name] if image.stored.turned != mask.stored.turned else []
        elif matches_after_rotation(image, mask):
            turned.append(one.name)
        else:
            text = f"{one.name}: its mask is {times(mask.size)}, the image {times(image.size)}"
            yield Finding(ERROR, f"{text}; they must be of one size")
    text = (
        "images and masks have one size only once the image is turned as its EXIF tag says, which training does not do"
    )
    yield from files_finding(ERROR, f"{text}; fix=OUT writes them turned", turned)
    text = (
        "EXIF tags say to turn images or masks, which training does not do: pixels are taken as they are stored. "
        "Look at one: if the mask was drawn on the picture as viewers show it, turn the image first"
    )
    yield from files_finding(WARNING, text, unclear)


def matches_after_rotation(image: ImageFacts, mask: MaskFacts) -> bool:
    """Return whether the mask has the size of the image once this is turned as its EXIF tag says."""
    quarters = (image.stored.turned in QUARTER_TURNS) != (mask.stored.turned in QUARTER_TURNS)
    return quarters and image.size == mask.size[::-1]


def find_odd_axes_and_channels(survey: Survey) -> Iterator[Finding]:
    """Find masks of other axes and images of other channels than most."""
    odd = [one.name for one, mask in survey.masks if len(mask.size) != survey.spatial_dims]
    text = f"masks have another number of axes than the {survey.spatial_dims} of most; divide the data set"
    yield from files_finding(ERROR, text, odd)
    found = format_counts(f"images of {image.channels}" for _, image in survey.images)
    remedy = "; 'data.source.mode=RGB' (or L) converts them" if survey.can_convert else ""
    others = [one.name for one, image in survey.images if image.channels != survey.channels]
    text = f"images differ in their number of channels: {found}; all need the same{remedy}"
    yield from files_finding(ERROR, text, others)
    files = [one.name for one, image in survey.images if image.stored.kind.endswith("RGBA") and survey.channels == 4]
    text = "images have a fourth channel, transparency, that the network will see; 'data.source.mode=RGB' drops it"
    yield from files_finding(NOTE, text, files)


def find_unmapped_values(survey: Survey) -> Iterator[Finding]:
    """Compare what the masks store with what the configuration says of it."""
    encoding = survey.encoding
    lossy = [one.name for one, mask in survey.masks if mask.lossy]
    text = "masks are lossy (JPEG, or once were): values blur into each other; fix=OUT snaps them"
    yield from files_finding(ERROR if encoding.lossy else NOTE, text, lossy)
    if encoding.numbered:
        text = f"masks number their objects ({len(survey.counts)} values), but classes are wanted"
        yield Finding(ERROR, f"{text}; fix=OUT makes all but 0 one class")
    elif unknown := encoding.unknown:
        where = (one.name for one, mask in survey.masks if any(key in mask.counts for key in unknown))
        text = (
            f"masks hold {format_values(unknown)}, which {'is' if len(unknown) == 1 else 'are'} none of the "
            f"{len(encoding.classes)} classes ({', '.join(encoding.classes)}); correct the masks, or say what "
            f"the values stand for with data.source.values"
        )
        yield Finding(ERROR, text, tuple(where))
    for override in encoding.overrides:
        if override.startswith("data.source.values"):
            yield Finding(ERROR if survey.named else NOTE, f"masks need '{override}'; see that the names are right")


def find_missing_labels(survey: Survey) -> Iterator[Finding]:
    """Find masks with nothing in them and classes that never occur."""
    if not survey.encoding.meaning:
        return
    first = survey.encoding.classes[0]
    found = {one.name: {name for name, n in survey.mask_classes(mask).items() if n} for one, mask in survey.masks}
    unlabelled = [name for name, present in found.items() if present == {IGNORE}]
    yield from files_finding(WARNING, "masks are ignored everywhere: nothing is learned from them", unlabelled)
    empty = [name for name, present in found.items() if first in present <= {first, IGNORE}]
    yield from files_finding(NOTE, f"{len(empty)} of {len(found)} masks hold {first} alone", empty)
    for split, facts in survey.splits.items():
        counts = survey.class_counts(facts)
        absent = [name for name in survey.encoding.classes if not counts[name]]
        if len(absent) == len(survey.encoding.classes):
            yield Finding(ERROR, f"{split} has no labelled sample: all are ignored")
        elif absent:
            kind = WARNING if split in SPLITS[:2] else NOTE
            yield Finding(kind, f"{split} has no pixel of {', '.join(absent)}")


def find_duplicates(survey: Survey) -> Iterator[Finding]:
    """Find images with the same pixels; across splits they make scores too good."""
    groups: dict[bytes, list[ItemFacts]] = {}
    for one, image in survey.images:
        if image.low < image.high:
            groups.setdefault(image.digest, []).append(one)
    equal = [group for group in groups.values() if len(group) > 1]
    across = [group for group in equal if len({one.split for one in group}) > 1]
    text = "the same images are in several splits, so scores will be too good; fix=OUT keeps one of each"
    yield from files_finding(WARNING, text, map(format_duplicates, across))
    within = (format_duplicates(group) for group in equal if group not in across)
    yield from files_finding(WARNING, "the same images occur more than once in a split", within)
    contradictory = (
        format_duplicates(group) for group in equal if len({one.mask.digest for one in group if one.mask}) > 1
    )
    yield from files_finding(WARNING, "equal images have different masks", contradictory)


def format_duplicates(group: Iterable[ItemFacts]) -> str:
    return " = ".join(f"{one.name} ({one.split})" for one in group)


def find_range_differences(survey: Survey) -> Iterator[Finding]:
    """Find bit depths and values that differ between images, or that reading narrows."""
    types = Counter(image.dtype for _, image in survey.images)
    others = [one.name for one, image in survey.images if image.dtype != types.most_common(1)[0][0]]
    found = format_counts(image.dtype for _, image in survey.images)
    yield from files_finding(WARNING, f"images differ in type ({found}), and so in range; bring them to one", others)
    narrowed = (one.name for one, image in survey.images if image.stored.narrowed)
    text = "colour images of 16 bits are read with 8; save them as .npy to keep all bits"
    yield from files_finding(WARNING, text, narrowed)
    blank = (one.name for one, image in survey.images if image.low == image.high)
    yield from files_finding(WARNING, "images are of one value everywhere", blank)
    tops = [image.high for _, image in survey.images if image.dtype == "float32" and image.high > 0]
    if tops and max(tops) > 50 * min(tops):
        text = f"the largest values of float images go from {min(tops):.4g} to {max(tops):.4g}; bring them to one scale"
        yield Finding(WARNING, text)


def format_counts(values: Iterable[str]) -> str:
    """Return ``9 uint16, 1 uint8``: how often each value occurs, the commonest first."""
    return ", ".join(f"{count} {value}" for value, count in Counter(values).most_common())


CHECKS: tuple[Check, ...] = (
    find_unreadable,
    find_size_mismatches,
    find_odd_axes_and_channels,
    find_unmapped_values,
    find_missing_labels,
    find_duplicates,
    find_range_differences,
)
