"""Arrays that are written to image files, and the check that a file is read as its array."""

from pathlib import Path
from typing import Any

import numpy as np

from unet.io.image_reader import ReadOptions, open_image

H, W = 37, 29


def values(channels: int, dtype: str) -> np.ndarray:
    """Return an array (H, W, C) with negative values and the limits of the type among it."""
    kind = np.dtype(dtype)
    pixels = np.random.default_rng(channels).normal(0, 1000, (H, W, channels))
    if kind.kind in "ui":
        info = np.iinfo(kind)
        pixels = np.random.default_rng(channels).integers(
            info.min, info.max, (H, W, channels), kind.newbyteorder("="), True
        )
        pixels[0, 0], pixels[-1, -1] = info.min, info.max
    return pixels.astype(kind)


def check(path: Path, expected: np.ndarray, **options: Any) -> None:
    """Check the whole image, its rows in three parts, a window, and its type."""
    for in_parts in (False, True):
        reader = open_image(path, 2, ReadOptions(**options), in_parts=in_parts)
        assert (*reader.size, reader.channels) == expected.shape
        native = expected.dtype.newbyteorder("=")
        dtype = native if native in (np.uint8, np.uint16) else np.dtype(np.float32)
        assert reader.pixels().dtype == dtype
        assert np.array_equal(reader.pixels(), expected.astype(dtype), equal_nan=True)
        parts = [reader.rows(begin, end) for begin, end in ((0, 5), (3, 20), (20, len(expected)))]
        assert np.array_equal(
            np.concatenate([parts[0], parts[1][2:], parts[2]]), expected.astype(dtype), equal_nan=True
        )
        window = slice(3, 21), slice(2, expected.shape[1] - 1)
        assert np.array_equal(reader.pixels(window), expected[window].astype(dtype), equal_nan=True)
