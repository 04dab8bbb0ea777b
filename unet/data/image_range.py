"""The type and the range of the values of images, and warnings of images in which they are wrong or differ."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from unet.data.source import Array

MIN_COUNT, MIN_GAP = 8, 2
"""Pixels with one value that are no chance, and the gap to all other values, in units of their range."""
MAX_RATIO = 50
"""Ratio of the maxima of two images up to which they may be in the same units."""
MIN_STEPS = 2**8
"""Values that float32 should distinguish in the range of an image."""


@dataclass(frozen=True, kw_only=True)
class ImageRange:
    """The values of an image (*S, C).

    Attributes:
        dtype: uint8, uint16 or float32.
        low, high: the smallest and the largest finite value; NaN if there is none.
        num_missing: number of pixels without data: all channels are NaN.
        isolated: a value of many pixels that is far below or above all others of its channel, as -9999 for no data is.
    """

    dtype: str
    low: float
    high: float
    num_missing: int
    isolated: float | None


def image_range(image: Array) -> ImageRange:
    """Return the range of an image (*S, C)."""
    pixels = image.reshape(-1, image.shape[-1])
    missing = int(np.isnan(pixels).all(-1).sum()) if image.dtype.kind == "f" else 0
    finite = pixels[np.isfinite(pixels)] if image.dtype.kind == "f" else pixels
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    channels = [] if image.dtype == np.uint8 else [isolated_value(values) for values in pixels.T]
    isolated = next((value for value in channels if value is not None), None)
    return ImageRange(dtype=str(image.dtype), low=low, high=high, num_missing=missing, isolated=isolated)


def isolated_value(values: Array) -> float | None:
    """Return the smallest or the largest of the values (N,) if it is frequent and far from all others."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    for extreme in (values.min(), values.max()):
        others = values[values != extreme]
        if len(values) - len(others) < MIN_COUNT or not others.size:
            continue
        low, high, number = float(others.min()), float(others.max()), float(extreme)
        if low < high and max(low - number, number - high) > MIN_GAP * (high - low):
            return number
    return None


def range_warnings(images: Iterable[tuple[str, ImageRange]]) -> Iterator[tuple[str, list[str]]]:
    """Yield a message and the names of the images concerned for each fault in the values of named images."""
    images = list(images)
    # NaN makes any type float32.
    types = Counter(image.dtype for _, image in images if not image.num_missing)
    if len(types) > 1:
        usual = types.most_common(1)[0][0]
        text = f"images differ in type: {format_counts(types)}; convert them to one type and range"
        yield text, [name for name, image in images if not image.num_missing and image.dtype != usual]
    highs = [image.high for _, image in images if image.dtype != "uint8" and image.high > 0]
    if len(types) < 2 and highs and max(highs) > MAX_RATIO * min(highs):
        kind = "float" if not types or "float32" in types else next(iter(types))
        text = f"the maxima of {kind} images range from {min(highs):.4g} to {max(highs):.4g}; rescale the images"
        yield text, []
    isolated = Counter(image.isolated for _, image in images if image.isolated is not None)
    for number, _ in isolated.most_common(1):
        text = f"images have the value {number:.9g} in many pixels, far from all other values"
        remedy = f"if it stands for no data, add data.source.nodata={number:.9g}"
        yield f"{text}; {remedy}", [name for name, image in images if image.isolated == number]
    coarse = [name for name, image in images if image.dtype == "float32" and is_coarse(image)]
    text = "images have large values that differ by less than float32 resolves; subtract a constant from all of them"
    if coarse:
        yield text, coarse


def is_coarse(image: ImageRange) -> bool:
    """Return whether float32 has too few values in the range of an image."""
    largest, step = max(-image.low, image.high), float(np.finfo(np.float32).eps)
    if image.low == image.high:
        return largest * step > 1
    return image.high - image.low < MIN_STEPS * step * largest


def format_counts(counts: Counter[str] | Iterable[Hashable]) -> str:
    """Return the values with their frequencies, ``uint16 (9), uint8 (1)``; a single value without."""
    counts = Counter(counts)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common())
