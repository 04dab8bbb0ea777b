"""The content of a mask file, and the keys of its values."""

import math
from dataclasses import dataclass

import numpy as np

from unet.data.source import Array

Key = int | float | str | tuple[int, ...]
"""The value of a mask at a pixel: a number, a colour, or the name of a shape."""


@dataclass(frozen=True)
class MaskFile:
    """The content of a mask file.

    Attributes:
        pixels: (*S), or (*S, C) where it has channels.
        spatial_dims: number of spatial axes.
        palette: the colours of the indices that occur in an image with a palette.
        names: the keys that the values of ``pixels`` are positions of; empty: the values are the keys.
    """

    pixels: Array
    spatial_dims: int
    palette: dict[int, tuple[int, int, int]] | None = None
    names: tuple[Key, ...] = ()

    def index(self, colors: bool) -> tuple[Array, list[Key]]:
        """Return the position of every pixel's key (*S), and the keys that occur.

        With ``colors``, pixels with channels have colours as keys; without, they must be grey.
        """
        pixels, key = self.pixels, int_if_integral
        if pixels.ndim > self.spatial_dims:
            pixels, key = (pack_rgb(pixels), unpack_rgb) if colors else (pixels[..., 0], key)
        present, indices = unique_values(pixels)
        keys: list[Key] = [self.names[value] if self.names else key(value) for value in present.tolist()]
        return indices.reshape(pixels.shape), keys

    @property
    def is_grayscale(self) -> bool:
        """Return whether all pixels are grey, apart from alpha."""
        if self.pixels.ndim == self.spatial_dims:
            return True
        channels = self.pixels[..., :1] if self.pixels.shape[-1] < 3 else self.pixels[..., :3]
        return bool((channels == channels[..., :1]).all())


def unique_values(pixels: Array) -> tuple[Array, Array]:
    """Return the values that occur, ascending, and their index for each pixel, without sorting if they are 8-bit."""
    if pixels.dtype != np.uint8:
        return np.unique(pixels, return_inverse=True)
    occurs = np.bincount(pixels.ravel(), minlength=256) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[pixels]


def int_if_integral(value: float) -> int | float:
    """Return a value as an integer if it is integral, so that 0.5 is not read as 0; NaN is always the same object."""
    if math.isnan(value):
        return math.nan
    return int(value) if float(value).is_integer() else value


def pack_rgb(pixels: Array) -> Array:
    """Encode colours (*S, 3 or more) as one integer each."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def gray_as_color(key: Key) -> Key:
    """Return the colour of a grey level of 8 bits; any other key as it is."""
    return (key, key, key) if isinstance(key, int) and 0 <= key <= 255 else key


def unpack_rgb(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255
