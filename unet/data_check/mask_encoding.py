"""The classes that the values of the masks mean: as configured, or as their values suggest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unet.data.label_map import LabelMap, format_values
from unet.data_check.mask_values import Key, are_comparable, find_levels, nearest_levels
from unet.labels import IGNORE_INDEX

MAX_CLASSES = 32  # number of values above which, unless the user named the classes, the values are instance ids
IGNORE = "ignore"


@dataclass(frozen=True)
class Encoding:
    """The values of a data set's masks, and the overrides with which training can read them.

    Attributes:
        classes: names of the classes; generated if the user named none.
        meaning: the class of every value that occurs, or ``ignore``; empty if the values do not fit the classes.
        overrides: what to add to the command so that training can read the masks.
        lossy: the values are blurred: no mapping can read them, but ``fix`` maps each to its nearest level.
        has_instance_ids: the values number objects: no mapping can read them, but ``fix`` makes them one class.
        unknown: values that occur and have no class.
    """

    classes: tuple[str, ...]
    meaning: dict[Key, str]
    overrides: tuple[str, ...] = ()
    lossy: bool = False
    has_instance_ids: bool = False
    unknown: tuple[Key, ...] = ()

    def label(self, name: str) -> int:
        return IGNORE_INDEX if name == IGNORE else self.classes.index(name)


def infer_encoding(counts: Mapping[Key, int], labels: LabelMap, has_classes: bool, lossy: bool) -> Encoding:
    """Infer the class of each value of a data set's masks.

    Args:
        counts: pixels of every value, over all masks.
        labels: the configured mapping.
        has_classes: whether the user named the classes in it; otherwise they are placeholders.
        lossy: whether some mask is lossy.
    """
    names = {**dict(enumerate(labels.classes)), IGNORE_INDEX: IGNORE}
    configured = {key: names[label] for key, label in labels.label_of_value.items()}
    if labels.has_values or (has_classes and set(counts) <= set(configured)):
        return snap_to_levels(counts, configured, tuple(labels.classes), (), lossy)
    levels = find_levels(counts) if lossy else list(counts)
    if not counts or not are_comparable(levels) or any(isinstance(key, float) for key in levels):
        fractions = tuple(key for key in counts if isinstance(key, float))
        return Encoding(tuple(labels.classes), {}, unknown=fractions or tuple(counts))
    if not lossy and are_instance_ids(levels, len(labels.classes) if has_classes else None):
        classes = tuple(labels.classes) if has_classes else ("background", "foreground")
        return Encoding(classes, {key: classes[key != 0] for key in counts}, has_instance_ids=True)
    # Numbers ascending; colours with black first and then by frequency.
    levels = sorted(levels, key=lambda key: (any(key), -counts[key]) if isinstance(key, tuple) else (0, key))
    meaning = guess_classes(levels, tuple(labels.classes) if has_classes else None)
    if meaning is None:
        unknown = tuple(key for key in counts if key not in configured)
        return Encoding(tuple(labels.classes), {}, lossy=lossy, unknown=unknown)
    classes = tuple(labels.classes) if has_classes else tuple(name for name in meaning.values() if name != IGNORE)
    overrides = () if has_classes else (classes_override(classes),)
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
    """Return the encoding in which every value of lossy masks has the class of its nearest level."""
    unknown = [key for key in counts if key not in meaning]
    levels = [key for key in meaning if are_comparable([key, *unknown])]
    if lossy and unknown and levels:
        level_of = dict(zip(unknown, nearest_levels(unknown, levels), strict=True))
        return Encoding(classes, {key: meaning[level_of.get(key, key)] for key in counts}, overrides, lossy=True)
    return Encoding(classes, {key: meaning[key] for key in counts if key in meaning}, overrides, unknown=tuple(unknown))


def are_instance_ids(levels: Sequence[Key], num_classes: int | None) -> bool:
    """Return whether the values number objects as 1, 2, 3 and so on, instead of classes."""
    numbers = {int(key) for key in levels if not isinstance(key, tuple)} - {0}
    has_ignore = max(numbers, default=0) == IGNORE_INDEX and IGNORE_INDEX - 1 not in numbers
    consecutive = len(numbers) >= 3 and 2 * len(numbers) >= max(numbers) and not has_ignore
    return (num_classes == 2 and consecutive) or (num_classes is None and len(numbers) > MAX_CLASSES)


def guess_classes(levels: Sequence[Key], classes: tuple[str, ...] | None) -> dict[Key, str] | None:
    """Return a class for each level, in the order of the classes; None if their numbers do not agree."""
    if classes is None:
        labels = [key for key in levels if not (key == IGNORE_INDEX and tuple(levels) != (0, IGNORE_INDEX))]
        labels = labels if len(labels) > 1 else list(levels)
        classes = (
            ("background", "foreground")
            if len(labels) <= 2
            else ("background", *(f"class_{label}" for label in range(1, len(labels))))
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
    """Return ``data.source.classes=[background,cell]``, without shell quotes."""
    return f"data.source.classes=[{','.join(classes)}]"


def values_override(meaning: Mapping[Key, str]) -> str:
    """Return ``data.source.values={0: background, 255: cell}``, without shell quotes."""
    return f"data.source.values={{{', '.join(f'{format_values([key])}: {name}' for key, name in meaning.items())}}}"
