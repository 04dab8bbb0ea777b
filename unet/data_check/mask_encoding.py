"""The classes that the values of the masks mean: as configured, or as their values suggest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from unet.data.annotations import BACKGROUND, CROWD
from unet.data.label_map import LabelMap, quote_name, values_override
from unet.data.mask_file import Key
from unet.data_check.mask_values import are_comparable, find_levels, nearest_levels
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
        alternatives: the override for each reading of the values, described in words; ``meaning`` is that of the first.
    """

    classes: tuple[str, ...]
    meaning: dict[Key, str]
    overrides: tuple[str, ...] = ()
    lossy: bool = False
    has_instance_ids: bool = False
    unknown: tuple[Key, ...] = ()
    alternatives: dict[str, str] = field(default_factory=dict)

    def label(self, name: str) -> int:
        return IGNORE_INDEX if name == IGNORE else self.classes.index(name)


def infer_encoding(
    counts: Mapping[Key, int], labels: LabelMap, has_classes: bool, lossy: bool, ignore_beside_labels: bool = True
) -> Encoding:
    """Infer the class of each value of a data set's masks.

    Args:
        counts: pixels of every value, over all masks.
        labels: the configured mapping.
        has_classes: whether the user named the classes in it; otherwise they are placeholders.
        lossy: whether some mask is lossy.
        ignore_beside_labels: whether 255 occurs beside other labels than 0 in some mask.
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
    if len(levels) > IGNORE_INDEX:  # more than there may be classes, such as a photograph or masks with soft colours
        return Encoding(tuple(labels.classes), {}, unknown=tuple(counts))
    named = tuple(labels.classes) if has_classes else None
    readings = readings_of_gray_levels(levels, named)
    if not readings and not ignore_beside_labels:
        readings = readings_of_255(levels, named)
    if readings:
        first = next(iter(readings.values()))
        classes = tuple(dict.fromkeys(name for name in first.values() if name != IGNORE))
        alternatives = {meaning: values_override(reading) for meaning, reading in readings.items()}
        return snap_to_levels(counts, first, classes, (), lossy, alternatives)
    # Numbers ascending after 0; colours with black first and then by frequency.
    levels = sorted(levels, key=lambda key: (any(key), -counts[key]) if isinstance(key, tuple) else (key != 0, key))
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
    alternatives: Mapping[str, str] = MappingProxyType({}),
) -> Encoding:
    """Return the encoding in which every value of lossy masks has the class of its nearest level."""
    unknown = [key for key in counts if key not in meaning]
    levels = [key for key in meaning if are_comparable([key, *unknown])]
    if lossy and unknown and levels:
        level_of = dict(zip(unknown, nearest_levels(unknown, levels), strict=True))
        mapped = {key: meaning[level_of.get(key, key)] for key in counts}
        return Encoding(classes, mapped, overrides, lossy=True, alternatives=dict(alternatives))
    mapped = {key: meaning[key] for key in counts if key in meaning}
    return Encoding(classes, mapped, overrides, unknown=tuple(unknown), alternatives=dict(alternatives))


def are_instance_ids(levels: Sequence[Key], num_classes: int | None) -> bool:
    """Return whether the values number objects as 1, 2, 3 and so on, instead of classes."""
    numbers = {int(key) for key in levels if not isinstance(key, tuple)} - {0}
    has_ignore = max(numbers, default=0) == IGNORE_INDEX and IGNORE_INDEX - 1 not in numbers
    consecutive = len(numbers) >= 3 and 2 * len(numbers) >= max(numbers) and not has_ignore
    return (num_classes == 2 and consecutive) or (num_classes in (None, 2) and len(numbers) > MAX_CLASSES)


def guess_classes(levels: Sequence[Key], classes: tuple[str, ...] | None) -> dict[Key, str] | None:
    """Return a class for each level, in the order of the classes; None if their numbers do not agree."""
    if classes is None:
        labels = [key for key in levels if not (key == IGNORE_INDEX and tuple(levels) != (0, IGNORE_INDEX))]
        labels = labels if len(labels) > 1 else list(levels)
        classes = guessed_names(len(labels))
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


def readings_of_255(levels: Sequence[Key], classes: tuple[str, ...] | None) -> dict[str, dict[Key, str]]:
    """Return what 255 may mean in some masks if others have the labels 0, 1 and so on, the likelier reading first."""
    labels = {key for key in levels if key != IGNORE_INDEX}
    classes = classes or guessed_names(len(labels))
    if IGNORE_INDEX not in levels or labels == {0} or not labels <= set(range(len(classes))):
        return {}
    named: dict[Key, str] = dict(enumerate(classes))
    names = (classes[1], IGNORE) if len(classes) == 2 else (IGNORE, classes[-1])
    return {describe_reading(name): named | {IGNORE_INDEX: name} for name in names}


def readings_of_gray_levels(levels: Sequence[Key], classes: tuple[str, ...] | None) -> dict[str, dict[Key, str]]:
    """Return what grey levels up to 255, such as 0, 128 and 255, may mean; nothing if they look like labels.

    255 may be the last class, or unlabelled. The level between 0 and 255 may also be a soft edge, or undecided.
    """
    values = sorted((key for key in levels if isinstance(key, int | float)), key=lambda key: (key != 0, key))
    others: list[int | float] = values[:-1]
    if len(values) < max(3, len(levels)) or values[-1] != IGNORE_INDEX:
        return {}
    if max(others) <= max(MAX_CLASSES, 2 * len(others)):
        return {}
    readings: dict[str, dict[Key, str]] = {}
    if classes is None:
        names = guessed_names(len(values))
        readings[describe_reading(names[-1])] = dict(zip(values, names, strict=True))
    if len(others) == 2 and (classes is None or len(classes) == 2):
        first, last = classes or guessed_names(2)
        text = f"255 is {last} and {others[1]} an edge or undecided"
        undecided: dict[Key, str] = {others[0]: first, others[1]: IGNORE, IGNORE_INDEX: last}
        readings[text] = undecided
    if classes is None or len(classes) == len(others):
        names = classes or guessed_names(len(others))
        unlabelled: dict[Key, str] = dict(zip(others, names, strict=True))
        readings[describe_reading(IGNORE)] = unlabelled | {IGNORE_INDEX: IGNORE}
    return readings


def describe_reading(name: str) -> str:
    return f"255 is {'unlabelled' if name == IGNORE else name}"


def guessed_names(count: int) -> tuple[str, ...]:
    """Return names for classes, at least two."""
    return ("background", "foreground") if count <= 2 else ("background", *(f"class_{n}" for n in range(1, count)))


def encode_names(counts: Mapping[Key, int], labels: LabelMap, has_classes: bool) -> Encoding:
    """Return the encoding of annotations in JSON, whose values are class names."""
    if has_classes:
        names = {**dict(enumerate(labels.classes)), IGNORE_INDEX: IGNORE}
        meaning = {key: names[label] for key, label in labels.labels_of_names().items()}
        return snap_to_levels(counts, meaning, tuple(labels.classes), (), lossy=False)
    found = sorted(key for key in counts if isinstance(key, str))
    classes = tuple(dict.fromkeys(["background", *found]))
    meaning: dict[Key, str] = {BACKGROUND: classes[0], CROWD: IGNORE, **{name: name for name in found}}
    overrides = (classes_override(classes),)
    return Encoding(classes, {key: meaning[key] for key in counts}, overrides)


def encode_colors(counts: Mapping[Key, int], labels: LabelMap, has_classes: bool) -> Encoding:
    """Return the encoding of palettes that disagree on the colours of the indices: ``counts`` are those of colours."""
    levels = sorted(counts, key=lambda key: (any(key), -counts[key]) if isinstance(key, tuple) else (True, 0))
    classes = tuple(labels.classes) if has_classes else guessed_names(len(levels))
    names = classes if len(levels) == len(classes) else ["NAME"] * len(levels)
    # Without a meaning: the indices in the files have none.
    return Encoding(classes, {}, (values_override(dict(zip(levels, names, strict=True))),))


def classes_override(classes: Sequence[str]) -> str:
    """Return ``data.source.classes=[background,cell]``, quoted for Hydra but not for the shell."""
    return f"data.source.classes=[{','.join(map(quote_name, classes))}]"
