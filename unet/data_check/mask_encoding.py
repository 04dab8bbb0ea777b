"""What the values in the masks stand for: as the configuration says, or as they look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unet.data.files import LabelMap, format_values
from unet.data_check.mask_values import Key, are_comparable, find_levels, nearest_levels
from unet.labels import IGNORE_INDEX

MAX_CLASSES = 32
"""More values than this, where nobody said what they are, number the objects and not the classes."""

IGNORE = "ignore"


@dataclass(frozen=True)
class Encoding:
    """What masks store, and what has to be said for the project to read it.

    Attributes:
        classes: the classes' names; invented where none were given.
        meaning: the class of every value that occurs, or ``ignore``; empty where nothing fits.
        overrides: what has to be added to the command for a training to read the masks.
        colors: the colours of the classes, where a palette has them.
        lossy: the masks' values blur into each other: no mapping reads them, but ``fix`` snaps them.
        numbered: the values number objects; no mapping reads them, but ``fix`` makes all of them foreground.
        unknown: values that occur and stand for nothing.
    """

    classes: tuple[str, ...]
    meaning: dict[Key, str]
    overrides: tuple[str, ...] = ()
    lossy: bool = False
    numbered: bool = False
    unknown: tuple[Key, ...] = field(default=())

    def label(self, name: str) -> int:
        return IGNORE_INDEX if name == IGNORE else self.classes.index(name)

    @property
    def readable(self) -> bool:
        """Whether the masks can be read with ``overrides``, as they are."""
        return not (self.lossy or self.numbered or self.unknown)


def infer_encoding(counts: Mapping[Key, int], labels: LabelMap, named: bool, lossy: bool) -> Encoding:
    """Find out what the values of a data set's masks stand for.

    Args:
        counts: pixels of every value, over all masks.
        labels: what the configuration says.
        named: whether the classes in it were given by the user, and not put there for want of any.
        lossy: whether some mask is known to blur its values.
    """
    names = {**dict(enumerate(labels.classes)), IGNORE_INDEX: IGNORE}
    stated = {key: names[label] for key, label in labels.stored.items()}
    if labels.stated or (named and set(counts) <= set(stated)):
        return snap_to_levels(counts, stated, tuple(labels.classes), (), lossy)
    levels = find_levels(counts) if lossy else list(counts)
    if not counts or not are_comparable(levels) or any(isinstance(key, float) for key in levels):
        odd = tuple(key for key in counts if isinstance(key, float))
        return Encoding(tuple(labels.classes), {}, unknown=odd or tuple(counts))
    if not lossy and are_instance_ids(levels, len(labels.classes) if named else None):
        classes = tuple(labels.classes) if named else ("background", "foreground")
        return Encoding(classes, {key: classes[key != 0] for key in counts}, (), numbered=True)
    # Numbers ascending; colours with black first and then those of more pixels first.
    levels = sorted(levels, key=lambda key: (any(key), -counts[key]) if isinstance(key, tuple) else (0, key))
    meaning = guess_classes(levels, tuple(labels.classes) if named else None)
    if meaning is None:
        unknown = tuple(key for key in counts if key not in stated)
        return Encoding(tuple(labels.classes), {}, lossy=lossy, unknown=unknown)
    classes = tuple(labels.classes) if named else tuple(name for name in meaning.values() if name != IGNORE)
    overrides = () if named else (classes_override(classes),)
    if meaning != dict(enumerate(classes)):
        overrides = (values_override(meaning),)  # which names the classes, too
    return snap_to_levels(counts, meaning, classes, overrides, lossy)


def snap_to_levels(
    counts: Mapping[Key, int],
    meaning: Mapping[Key, str],
    classes: tuple[str, ...],
    overrides: tuple[str, ...],
    lossy: bool,
) -> Encoding:
    """The encoding with which every value that occurs has a meaning, if it is a level's or blurred from one."""
    other = [key for key in counts if key not in meaning]
    levels = [key for key in meaning if are_comparable([key, *other])]
    if lossy and other and levels:
        blurred = dict(zip(other, nearest_levels(other, levels), strict=True))
        found = {key: meaning[blurred.get(key, key)] for key in counts}
        return Encoding(classes, found, overrides, lossy=True)
    found = {key: meaning[key] for key in counts if key in meaning}
    return Encoding(classes, found, overrides, unknown=tuple(other))


def are_instance_ids(levels: Sequence[Key], classes: int | None) -> bool:
    """Return whether the values count objects, 1, 2, 3 and so on, where classes were meant."""
    numbers = {int(key) for key in levels if not isinstance(key, tuple)} - {0}
    ignored = max(numbers, default=0) == IGNORE_INDEX and IGNORE_INDEX - 1 not in numbers
    crowded = len(numbers) >= 3 and 2 * len(numbers) >= max(numbers) and not ignored
    return (classes == 2 and crowded) or (classes is None and len(numbers) > MAX_CLASSES)


def guess_classes(levels: Sequence[Key], classes: tuple[str, ...] | None) -> dict[Key, str] | None:
    """What the levels stand for, in the order of the classes; None where their numbers do not agree."""
    if classes is None:
        labels = [key for key in levels if not (key == IGNORE_INDEX and tuple(levels) != (0, IGNORE_INDEX))]
        labels = labels if len(labels) > 1 else list(levels)
        classes = (
            ("background", "foreground")
            if len(labels) <= 2
            else ("background", *(f"class_{place}" for place in range(1, len(labels))))
        )
    elif set(levels) <= {*range(len(classes)), IGNORE_INDEX} and set(levels) != {0, IGNORE_INDEX}:
        return {**dict(enumerate(classes)), **({IGNORE_INDEX: IGNORE} if IGNORE_INDEX in levels else {})}
    elif len(levels) == len(classes):
        labels = list(levels)
    elif len(levels) == len(classes) + 1 and IGNORE_INDEX in levels:
        labels = [key for key in levels if key != IGNORE_INDEX]
    else:
        return None
    if len(labels) < 2 and classes == ("background", "foreground") and labels[0] != 0:
        return None
    meaning: dict[Key, str] = dict(zip(labels, classes, strict=False))
    if len(labels) == 1:
        meaning[1] = classes[1]
    return meaning | {key: IGNORE for key in levels if key not in labels}


def classes_override(classes: Sequence[str]) -> str:
    return f"data.source.classes=[{','.join(classes)}]"


def values_override(meaning: Mapping[Key, str]) -> str:
    """``data.source.values={0: background, 255: cell}``, as the command line takes it but for the quotes."""
    return f"data.source.values={{{', '.join(f'{format_values([key])}: {name}' for key, name in meaning.items())}}}"
