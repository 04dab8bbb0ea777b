"""Map the values that mask files store to labels."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.annotations import BACKGROUND, CROWD
from unet.data.mask_file import Key, MaskFile, gray_as_color
from unet.data.mask_reading import read_mask
from unet.data.source import Array, Color
from unet.errors import UserError, did_you_mean
from unet.labels import IGNORE_INDEX


class MaskError(UserError):
    """An error in the values of a mask, not in one file alone: other masks may have it too."""


class LabelMap:
    """A mapping from the values of masks to labels.

    Args:
        values: value -> class name, or ``ignore``; a value is an integer, ``"r g b"`` for a colour mask, or the name of
            a shape in JSON annotations. None: the value is the label, and nothing is ignored; a shape has the class of
            its name, and pixels outside all shapes the first.
        classes: class names; their index is the label.
    """

    def __init__(self, values: Mapping[Any, str] | None, classes: Sequence[str]):
        if values is not None and (not isinstance(values, Mapping) or not values):
            raise UserError(
                f"data.source.values: expected a class, or ignore, for every value of the masks, such as "
                f"'{{0: {classes[0]}, 255: {classes[1]}}}', found {values!r}"
            )
        self.classes = list(classes)
        self.has_values = values is not None
        names = dict(enumerate(self.classes)) if values is None else values
        self.label_of_value: dict[Any, int] = {parse_value(key): self.label(str(name)) for key, name in names.items()}
        self.has_colors = any(isinstance(key, tuple) for key in self.label_of_value)
        self.gray_mask: Path | None = None
        self.reordered_mask: Path | None = None
        self.palette: dict[int, tuple[Color, Path]] = {}  # colours of the indices in the masks read, and the first file

    def label(self, name: str) -> int:
        if name == "ignore":
            return IGNORE_INDEX
        if name not in self.classes:
            raise UserError(
                f"data.source.values: unknown class {name!r}{did_you_mean(name, self.classes)} "
                f"(valid: {', '.join(self.classes)}, ignore)"
            )
        return self.classes.index(name)

    def read(self, path: Path) -> Array:
        """Read a mask file as labels (*S)."""
        return self(read_mask(path, self.has_colors), path)

    def __call__(self, mask: MaskFile, path: Path) -> Array:
        """Return the labels (*S) of a mask, uint8.

        Raises:
            MaskError: it has a value without a label, colours that are not mapped, or a palette in which an index has
                another colour than in a mask read before.
        """
        if not self.has_colors and not mask.is_grayscale:
            raise MaskError(colors_message(mask, path))
        self.compare_palette(mask, path)
        indices, keys = mask.index(self.has_colors)
        table = self.labels_of_names() if mask.names else self.label_of_value
        if not mask.names and (names := [key for key in table if isinstance(key, str)]):
            raise MaskError(
                f'data.source.values: expected an integer or "r g b", found {names[0]!r}: only JSON annotations have '
                f"names, and {path} is an image"
            )
        if self.has_colors:  # a grey mask among colour masks, such as an empty one
            keys = [key if key in table else gray_as_color(key) for key in keys]
        unknown = [key for key in keys if key not in table]
        if unknown and mask.names:
            raise MaskError(
                f"{path}: {format_values(unknown)} in the annotations, expected one of the classes "
                f"({', '.join(self.classes)}); add it to data.source.classes, or map it with data.source.values"
            )
        if unknown:
            raise MaskError(
                f"{path}: label {format_values(unknown)} is outside the {len(self.classes)} classes (expected "
                f"{format_values(table)}); {self.advice(keys)}"
            )
        return np.array([table[key] for key in keys], np.uint8)[indices]

    def labels_of_names(self) -> dict[Key, int]:
        """Return the label of every key of JSON annotations: class names, and those that ``values`` maps."""
        names = {name: label for label, name in enumerate(self.classes)}
        return {BACKGROUND: 0, CROWD: IGNORE_INDEX, **names} | (self.label_of_value if self.has_values else {})

    def compare_palette(self, mask: MaskFile, path: Path) -> None:
        """Raise MaskError if an index that occurs has another colour than in a mask read before.

        Among masks without a palette, whose values are the labels, a palette in which another index than 0 is black is
        an error as well.
        """
        black = next((index for index, color in (mask.palette or {}).items() if color == (0, 0, 0)), 0)
        if mask.palette is None and mask.pixels.ndim == mask.spatial_dims and not mask.names:
            self.gray_mask = path
        elif black != 0:
            self.reordered_mask = path
        if self.gray_mask and self.reordered_mask:
            raise MaskError(
                f"{self.reordered_mask}: black is not index 0 of its palette, and {self.gray_mask.name} has no "
                f"palette, so their values have different meanings; save all masks in one way, or map the colours with "
                f"data.source.values"
            )
        for index, color in (mask.palette or {}).items():
            first_color, first_path = self.palette.setdefault(index, (color, path))
            if color != first_color:
                colors = dict.fromkeys([*(known for known, _ in self.palette.values()), *(mask.palette or {}).values()])
                raise MaskError(
                    f"{path}: index {index} of its palette is {format_values([color])}, in {first_path.name} "
                    f"{format_values([first_color])}, so the indices are no labels; {colors_override(colors)}"
                )

    def advice(self, present: list) -> str:
        """Return advice for a mask with the values ``present``; for the usual encodings, the override to add."""
        if not self.has_values and len(self.classes) == 2 and set(present) <= {0, 255}:
            meaning = {0: self.classes[0], 255: self.classes[1]}
            condition = f"0 is {self.classes[0]} and 255 is {self.classes[1]}"
        elif not self.has_values and set(present) - set(self.label_of_value) == {255} and set(present) - {0, 255}:
            meaning = {**dict(enumerate(self.classes)), 255: "ignore"}
            condition = "255 is unlabelled"
        else:
            return "correct the mask, or map the value with data.source.values (data=folder)"
        return f"if {condition}, add {shlex.quote(values_override(meaning))}"


def parse_value(key: float | str) -> float | str | tuple[int, ...]:
    """Parse a key of ``values``: a number, a colour such as ``"r g b"`` or ``"r,g,b"``, or the name of a shape."""
    text = str(key).replace(",", " ")
    if text == "nan":
        return math.nan
    if not re.match(r"[\d\s.+-]*$", text):
        return str(key)
    try:
        parts = tuple(int(part) for part in text.split())
    except ValueError:
        parts = ()
    if len(parts) not in (1, 3):
        raise UserError(f'data.source.values: expected an integer, "r g b" or a name, found {key!r}')
    return parts[0] if len(parts) == 1 else parts


def format_values(keys: Iterable, most: int = 12) -> str:
    """Return the first keys, as they are written in ``values``."""
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in keys]
    return ", ".join(names[:most] + ["..."] * (len(names) > most))


def colors_message(mask: MaskFile, path: Path) -> str:
    """Return the message for a mask of colours that are not mapped."""
    _, colors = mask.index(colors=True)
    return f"{path}: a colour mask of {len(colors)} colours, expected labels in one channel; {colors_override(colors)}"


def colors_override(colors: Iterable[Key]) -> str:
    """Return the advice to map colours to classes."""
    colors = list(colors)
    entries = ", ".join(f"{format_values([color])}: NAME" for color in colors[:12])
    override = f"'data.source.values={{{entries}{', ...' if len(colors) > 12 else ''}}}'"
    return f"map each colour to a class (or ignore) with {override}"


def values_override(meaning: Mapping[Any, str]) -> str:
    """Return ``data.source.values={0: background, 255: cell}``, quoted for Hydra but not for the shell."""
    entries = (
        f"{quote_name(key) if isinstance(key, str) else format_values([key])}: {quote_name(name)}"
        for key, name in meaning.items()
    )
    return f"data.source.values={{{', '.join(entries)}}}"


def quote_name(name: str) -> str:
    """Return a name in double quotes if Hydra does not take it without."""
    words = ("null", "true", "false", "nan", "inf")
    if re.fullmatch(r"[A-Za-z_][\w .-]*", name, re.ASCII) and name.lower() not in words:
        return name
    escaped = name.replace('"', '\\"')
    return f'"{escaped}"'
