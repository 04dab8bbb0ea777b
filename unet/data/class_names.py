"""Check the class names and colours of a folder of images and masks."""

from collections.abc import Mapping, Sequence
from typing import Any

from unet.data.label_map import LabelMap, format_values
from unet.data.source import PALETTE, Color
from unet.errors import UserError
from unet.labels import IGNORE_INDEX


def classes_in(values: Mapping[Any, str] | None) -> list[str] | None:
    """Return the classes in ``values``, in order of their first occurrence; None without ``values``."""
    if not isinstance(values, Mapping):
        return None
    for value, name in values.items():
        if not isinstance(name, str | int | float):
            raise UserError(
                f"data.source.values: expected the name of a class, or ignore, for {value}, found {name!r}; quote a "
                f'name such as "null"'
            )
    return [name for name in dict.fromkeys(map(str, values.values())) if name != "ignore"]


def check_classes(classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names as strings. Raises UserError unless they are a list of different names."""
    names = tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else ()
    valid = all(isinstance(name, str | int | float) and str(name).strip() for name in (classes if names else ()) or ())
    if not valid or not 2 <= len(names) == len(set(names)) <= IGNORE_INDEX or "ignore" in names:
        raise UserError(
            f"data.source.classes: expected a list of at least two names, such as "
            f"'data.source.classes=[background,cell]', up to {IGNORE_INDEX} different names, none of them ignore or "
            f"empty, found {f'{len(names)}: {format_values(names)}' if names else repr(classes)}"
        )
    return names


def class_colors(colors: Sequence[Sequence[int]] | None, labels: LabelMap) -> list[Color]:
    """Return the configured colours; by default those of colour masks, or the palette, repeated if it is too short."""
    count = len(labels.classes)
    if colors is not None:
        try:
            result = [(red, green, blue) for red, green, blue in colors]
        except (TypeError, ValueError):
            result = []
        if len(result) != count or not all(type(value) is int and 0 <= value < 256 for rgb in result for value in rgb):
            raise UserError(
                f"data.source.colors: expected {count} of [r, g, b], each 0 to 255, one per class, found {colors!r}"
            )
        return result
    result = [PALETTE[label % len(PALETTE)] for label in range(count)]
    for key, label in labels.label_of_value.items():
        if isinstance(key, tuple) and label != IGNORE_INDEX:
            result[label] = (key[0], key[1], key[2])
    return result
