"""Map the values that mask files store to labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.source import Array
from unet.errors import UserError, did_you_mean
from unet.io.image_formats import NIFTI, name_parts
from unet.io.image_reader import open_stored
from unet.labels import IGNORE_INDEX
from unet.network.geometry import times


class LabelMap:
    """A mapping from the values of masks to labels.

    Args:
        values: value -> class name, or ``ignore``; a value is an integer, or ``"r g b"`` for a colour mask. None: the
            value is the label, and nothing is ignored.
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
        self.label_of_value: dict[Any, int] = {parse_value(key): self.label(name) for key, name in names.items()}
        self.has_colors = any(isinstance(key, tuple) for key in self.label_of_value)

    def label(self, name: str) -> int:
        if name == "ignore":
            return IGNORE_INDEX
        if name not in self.classes:
            raise UserError(
                f"data.source.values: unknown class {name!r}{did_you_mean(str(name), self.classes)} "
                f"(valid: {', '.join(self.classes)}, ignore)"
            )
        return self.classes.index(name)

    def read(self, path: Path, image: Path | None = None) -> Array:
        """Read a mask file as labels (*S), on the voxel grid of its ``image`` if both are NIfTI files."""
        pixels, spatial_dims = self.pixels(path, image)
        return self(pixels, path, spatial_dims)

    def pixels(self, path: Path, image: Path | None = None) -> tuple[Array, int]:
        """Read the values of a mask file, (*S) or (*S, C), and the number of spatial axes.

        A palette image gives its indices, or its colours if colours are mapped. All axes of an array are spatial unless
        colours are mapped, except a fourth axis of size 1.
        """
        is_nifti = image is not None and name_parts(image)[1] in NIFTI and name_parts(path)[1] in NIFTI
        stored = open_stored(path, grid=image if is_nifti else None)
        pixels, spatial_dims = stored.pixels(), stored.spatial_dims
        if stored.palette is not None and stored.palette.shape[1] == 3 and self.has_colors:
            pixels = stored.palette[pixels]
        if spatial_dims is None:
            pixels = pixels[..., 0] if pixels.ndim == 4 and pixels.shape[-1] == 1 else pixels
            spatial_dims = pixels.ndim - 1 if self.has_colors and pixels.shape[-1] in (3, 4) else pixels.ndim
        if not 1 <= spatial_dims <= 3:
            raise UserError(f"{path}: a mask of {times(pixels.shape)}, expected one to three axes and no channels")
        return pixels, spatial_dims

    def __call__(self, pixels: Array, path: Path, spatial_dims: int = 2) -> Array:
        """Map values (*S) or (*S, C) to labels (*S), uint8. Raises UserError for a value without a label."""
        key: Callable[[Any], Any] = int_if_integral
        if pixels.ndim > spatial_dims and self.has_colors:
            pixels, key = pack_rgb(pixels), unpack_rgb
        elif pixels.ndim > spatial_dims:
            pixels = require_grayscale(pixels, path)
        present, indices = unique_values(pixels)
        keys = [key(value) for value in present.tolist()]
        unknown = [key for key in keys if key not in self.label_of_value]
        if unknown:
            raise UserError(
                f"{path}: label {format_values(unknown)} is outside the {len(self.classes)} classes (expected "
                f"{format_values(self.label_of_value)}); {self.advice(keys)}"
            )
        return np.array([self.label_of_value[key] for key in keys], np.uint8)[indices].reshape(pixels.shape)

    def advice(self, present: list) -> str:
        """Return advice for a mask with the values ``present``; for the usual encodings, the override to add."""
        if not self.has_values and len(self.classes) == 2 and set(present) <= {0, 255}:
            meaning = {0: self.classes[0], 255: self.classes[1]}
            condition = f"0 is {self.classes[0]} and 255 is {self.classes[1]}"
        elif not self.has_values and set(present) - set(self.label_of_value) == {255}:
            meaning = {**dict(enumerate(self.classes)), 255: "ignore"}
            condition = "255 is unlabelled"
        else:
            return "correct the mask, or map the value with data.source.values (data=folder)"
        entries = ", ".join(f"{value}: {name}" for value, name in meaning.items())
        return f"if {condition}, add 'data.source.values={{{entries}}}'"


def parse_value(key: int | str) -> int | tuple[int, ...]:
    """Parse a key of ``values``: an integer, or a colour such as ``"r g b"`` or ``"r,g,b"``."""
    try:
        parts = tuple(int(part) for part in str(key).replace(",", " ").split())
    except ValueError:
        parts = ()
    if len(parts) not in (1, 3):
        raise UserError(f'data.source.values: expected an integer or "r g b", found {key!r}')
    return parts[0] if len(parts) == 1 else parts


def format_values(keys: Iterable, most: int = 12) -> str:
    """Return the first keys, as they are written in ``values``."""
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in keys]
    return ", ".join(names[:most] + ["..."] * (len(names) > most))


def unique_values(pixels: Array) -> tuple[Array, Array]:
    """Return the values that occur, ascending, and their index for each pixel, without sorting if they are 8-bit."""
    if pixels.dtype != np.uint8:
        return np.unique(pixels, return_inverse=True)
    occurs = np.bincount(pixels.ravel(), minlength=256) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[pixels]


def int_if_integral(value: float) -> int | float:
    """Return a value as an integer if it is integral, so that 0.5 is not read as 0."""
    return int(value) if float(value).is_integer() else value


def pack_rgb(pixels: Array) -> Array:
    """Encode colours (*S, 3 or more) as one integer each."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def unpack_rgb(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255


def require_grayscale(pixels: Array, path: Path) -> Array:
    """Return a mask (*S, C) as one channel (*S). Raises UserError if it has colours."""
    gray = to_grayscale(pixels)
    if gray is None:
        colors = [unpack_rgb(value) for value in np.unique(pack_rgb(pixels)).tolist()]
        entries = ", ".join(f"{format_values([color])}: NAME" for color in colors[:12])
        raise UserError(
            f"{path}: a colour mask of {len(colors)} colours, expected labels in one channel; map each colour to a "
            f"class (or ignore) with 'data.source.values={{{entries}{', ...' if len(colors) > 12 else ''}}}'"
        )
    return gray


def to_grayscale(pixels: Array) -> Array | None:
    """Return pixels (*S, C) as grey (*S), without alpha; None if they have colours."""
    channels = pixels[..., :1] if pixels.shape[-1] < 3 else pixels[..., :3]
    return channels[..., 0] if (channels == channels[..., :1]).all() else None
