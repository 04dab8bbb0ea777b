"""What is wrong with a data set, or worth knowing: each a sentence with its files and with what to do."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from unet.check.facts import QUARTER_TURNS, Facts, ImageFacts, MaskFacts
from unet.check.survey import UNSPLIT, Survey, pairs_of
from unet.data.files import listed
from unet.data.source import SPLITS
from unet.geometry import times

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
class Training:
    """What a training asks of its data: images for a batch, unless it draws more, and a size of the images."""

    batch_size: int
    samples_per_epoch: int | None
    least_size: int


Check = Callable[[Survey], Iterator[Finding]]


def findings(survey: Survey, training: Training | None = None) -> list[Finding]:
    """All that the checks find, errors first; ``training``: what it asks of the data, None: nothing."""
    found = [finding for check in CHECKS for finding in check(survey)]
    if training is not None:
        found += demands(survey, training)
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.kind))


def demands(survey: Survey, training: Training) -> Iterator[Finding]:
    """What the configured training cannot do with this data."""
    draws = training.samples_per_epoch or len(survey.splits.get("train", []))
    if draws < training.batch_size and UNSPLIT not in survey.splits:
        text = f"{draws} training images are fewer than data.batch_size={training.batch_size}"
        remedy = "set data.samples_per_epoch to draw several crops of each, or a smaller batch"
        yield Finding(ERROR, f"{text}; {remedy}")
    small = [one.name for one, image in survey.images if one.split != "train" and min(image.size) < training.least_size]
    if small:
        text = f"images of less than {training.least_size} samples along an axis are too small for model.depth"
        yield Finding(ERROR, f"{text}; take a smaller depth, or larger images", tuple(small))


def one_by_one(survey: Survey) -> Iterator[Finding]:
    """Files that cannot be read or belong to no pair: their sentences say all."""
    for text in survey.problems + [fault for one in survey.facts for fault in one.faults]:
        yield Finding(ERROR, text)


def not_numbers(survey: Survey) -> Iterator[Finding]:
    broken = [one.name for one, image in survey.images if image.not_finite]
    if broken:
        yield Finding(ERROR, "images hold NaN or infinite values; replace them or take the images out", tuple(broken))


def sizes(survey: Survey) -> Iterator[Finding]:
    """Images and masks of different sizes, and pictures that a camera's EXIF tag says to turn."""
    both = [(one, one.image, one.mask) for one in survey.facts if one.image and one.mask]
    differ = [(one, image, mask) for one, image, mask in both if image.size != mask.size]
    turned = [one for one, image, mask in differ if agrees_when_turned(image, mask)]
    if turned:
        text = (
            "images and masks have one size only once the image is turned as its EXIF tag says, which training "
            "does not do; fix=OUT writes them turned"
        )
        yield Finding(ERROR, text, names(turned))
    for one, image, mask in differ:
        if one not in turned:
            sizes = f"its mask is {times(mask.size)}, the image {times(image.size)}"
            yield Finding(ERROR, f"{one.name}: {sizes}; they must be of one size")
    unclear = [
        one for one, image, mask in both if image.size == mask.size and image.stored.turned != mask.stored.turned
    ]
    if unclear:
        text = (
            "EXIF tags say to turn images or masks, which training does not do: pixels are taken as they are stored. "
            "Look at one: if the mask was drawn on the picture as viewers show it, turn the image first"
        )
        yield Finding(WARNING, text, names(unclear))


def agrees_when_turned(image: ImageFacts, mask: MaskFacts) -> bool:
    """Is the mask the size of the image once this is turned as its EXIF tag says?"""
    quarters = (image.stored.turned in QUARTER_TURNS) != (mask.stored.turned in QUARTER_TURNS)
    return quarters and image.size == mask.size[::-1]


def axes_and_channels(survey: Survey) -> Iterator[Finding]:
    odd = [one.name for one, mask in survey.masks if len(mask.size) != survey.spatial_dims]
    if odd:
        text = f"masks have another number of axes than the {survey.spatial_dims} of most; divide the data set"
        yield Finding(ERROR, text, tuple(odd))
    kinds = Counter(image.channels for _, image in survey.images)
    if len(kinds) > 1:
        found = ", ".join(f"{count} images of {channels}" for channels, count in kinds.most_common())
        shallow = survey.spatial_dims == 2 and all(image.dtype == "uint8" for _, image in survey.images)
        remedy = "; 'data.source.mode=RGB' (or L) converts them" if shallow else ""
        others = [one.name for one, image in survey.images if image.channels != survey.channels]
        text = f"images differ in their number of channels: {found}; all need the same{remedy}"
        yield Finding(ERROR, text, tuple(others))


def values(survey: Survey) -> Iterator[Finding]:
    """What the masks store, against what the configuration says of it."""
    encoding = survey.encoding
    lossy = [one.name for one, mask in survey.masks if mask.lossy]
    unknown = encoding.unknown
    if encoding.lossy or lossy:
        text = "masks are lossy (JPEG, or once were): values blur into each other; fix=OUT snaps them"
        yield Finding(ERROR if encoding.lossy else NOTE, text, tuple(lossy))
    if encoding.numbered:
        text = (
            f"masks number their objects ({len(survey.counts)} values), but classes are wanted; fix=OUT makes all "
            "but 0 one class"
        )
        yield Finding(ERROR, text)
    elif unknown:
        where = [one.name for one, mask in survey.masks if any(key in mask.counts for key in unknown)]
        text = (
            f"masks hold {listed(unknown)}, which {'is' if len(unknown) == 1 else 'are'} none of the "
            f"{len(encoding.classes)} classes ({', '.join(encoding.classes)}); correct the masks, or say what "
            f"the values stand for with data.source.values"
        )
        yield Finding(ERROR, text, tuple(where))
    for override in encoding.overrides:
        if override.startswith("data.source.values"):
            yield Finding(ERROR if survey.named else NOTE, f"masks need '{override}'; see that the names are right")


def labels(survey: Survey) -> Iterator[Finding]:
    """Masks with nothing in them, classes that never occur."""
    if not survey.encoding.meaning:
        return
    first, *others = survey.encoding.classes
    found = {
        one.name: {name for name, count in survey.mask_classes(mask).items() if count} for one, mask in survey.masks
    }
    unlabelled = [name for name, present in found.items() if present == {"ignore"}]
    if unlabelled:
        yield Finding(WARNING, "masks are ignored everywhere: nothing is learned from them", tuple(unlabelled))
    empty = [name for name, present in found.items() if present and present <= {first, "ignore"} and first in present]
    if empty and others:
        yield Finding(NOTE, f"{len(empty)} of {len(found)} masks hold {first} alone", tuple(empty))
    for split, facts in survey.splits.items():
        counts = survey.class_counts(facts)
        absent = [name for name in survey.encoding.classes if not counts[name]]
        if len(absent) == len(survey.encoding.classes):
            yield Finding(ERROR, f"{split} has no labelled sample: all are ignored")
        elif absent:
            kind = WARNING if split in SPLITS[:2] else NOTE
            yield Finding(kind, f"{split} has no pixel of {', '.join(absent)}")


def duplicates(survey: Survey) -> Iterator[Finding]:
    """Images with the same pixels; across splits they make scores too good."""
    groups: dict[bytes, list[Facts]] = {}
    for one, image in survey.images:
        if image.low < image.high:
            groups.setdefault(image.digest, []).append(one)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    across = [group for group in groups.values() if len({one.split for one in group}) > 1]
    within = [group for group in groups.values() if group not in across]
    if across:
        text = "the same images are in several splits, so scores will be too good; fix=OUT keeps one of each"
        yield Finding(WARNING, text, equal_to_each_other(across))
    if within:
        yield Finding(WARNING, "the same images occur more than once in a split", equal_to_each_other(within))
    contradictory = [g for g in groups.values() if len({one.mask.digest for one in g if one.mask}) > 1]
    if contradictory:
        yield Finding(WARNING, "equal images have different masks", equal_to_each_other(contradictory))


def equal_to_each_other(groups: Iterable[list[Facts]]) -> tuple[str, ...]:
    return tuple(" = ".join(f"{one.name} ({one.split})" for one in group) for group in groups)


def ranges(survey: Survey) -> Iterator[Finding]:
    """Bit depths and values that differ between images, or that reading narrows."""
    types = Counter(image.dtype for _, image in survey.images)
    if len(types) > 1:
        common = types.most_common(1)[0][0]
        others = tuple(one.name for one, image in survey.images if image.dtype != common)
        found = ", ".join(f"{count} {name}" for name, count in types.most_common())
        yield Finding(WARNING, f"images differ in type ({found}), and so in range; bring them to one", others)
    narrowed = tuple(one.name for one, image in survey.images if image.stored.narrowed)
    if narrowed:
        yield Finding(WARNING, "colour images of 16 bits are read with 8; save them as .npy to keep all bits", narrowed)
    blank = tuple(one.name for one, image in survey.images if image.low == image.high)
    if blank:
        yield Finding(WARNING, "images are of one value everywhere", blank)
    tops = np.array([image.high for _, image in survey.images if image.dtype == "float32" and image.high > 0])
    if len(tops) > 1 and tops.max() > 50 * tops.min():
        low, high = (f"{value:.4g}" for value in (tops.min(), tops.max()))
        text = f"the largest values of float images go from {low} to {high}; bring them to one scale"
        yield Finding(WARNING, text)


def transparency(survey: Survey) -> Iterator[Finding]:
    files = tuple(one.name for one, _ in pairs_of(survey.facts) if one.image and one.image.stored.kind.endswith("RGBA"))
    if files and survey.channels == 4:
        text = "images have a fourth channel, transparency, that the network will see; 'data.source.mode=RGB' drops it"
        yield Finding(NOTE, text, files)


CHECKS: tuple[Check, ...] = (
    one_by_one,
    not_numbers,
    sizes,
    axes_and_channels,
    values,
    labels,
    duplicates,
    ranges,
    transparency,
)


def names(facts: Iterable[Facts]) -> tuple[str, ...]:
    return tuple(one.name for one in facts)
