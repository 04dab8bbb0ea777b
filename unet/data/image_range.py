"""The type and the range of the values of images, and warnings of images in which they are wrong or differ."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from unet.data.source import Array

MIN_COUNT, MIN_GAP, FAR = 8, 2, 10
"""Pixels with one value that are no chance, and the gap to all other values, in units of their range: from which it is
remarkable, and from which it hardly is a measurement."""
MAX_RATIO = 50
"""Ratio of the maxima of two images up to which they may be in the same units."""
MAX_SPACING_RATIO = 1.1
"""The ratio of voxel sizes up to which images are considered equal in it."""
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
        is_far: whether it is so far that it hardly is a measurement.
    """

    dtype: str
    low: float
    high: float
    num_missing: int
    isolated: float | None
    is_far: bool


def image_range(image: Array, dtype: np.dtype | None = None) -> ImageRange:
    """Return the range of an image (*S, C); ``dtype`` is that of its file, if pixels without data made it float32."""
    pixels = image.reshape(-1, image.shape[-1])
    missing = int(np.isnan(pixels).all(-1).sum()) if image.dtype.kind == "f" else 0
    finite = pixels[np.isfinite(pixels)] if image.dtype.kind == "f" else pixels
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    gaps = [] if image.dtype == np.uint8 else [gap for gap in map(isolated_value, pixels.T) if gap is not None]
    isolated, gap = max(gaps, key=lambda found: found[1], default=(None, 0.0))
    return ImageRange(
        dtype=str(dtype or image.dtype),
        low=low,
        high=high,
        num_missing=missing,
        isolated=isolated,
        is_far=gap > FAR and isolated != 0,  # 0 is what images have outside of an object
    )


def isolated_value(values: Array) -> tuple[float, float] | None:
    """Return the smallest or the largest of the values (N,) and its gap to the others, in units of their range.

    None if it is near to the others, or rare, unless it is the only negative value.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    for extreme in (values.min(), values.max()):
        others = values[values != extreme]
        if not others.size:
            continue
        low, high, number = float(others.min()), float(others.max()), float(extreme)
        if len(values) - len(others) < MIN_COUNT and not number < 0 <= low:
            continue
        gap = max(low - number, number - high) / (high - low) if low < high else 0.0
        if gap > MIN_GAP:
            return number, gap
    return None


def range_warnings(images: Iterable[tuple[str, ImageRange]]) -> Iterator[tuple[str, list[str]]]:
    """Yield a message and the names of the images concerned for each fault in the values of named images."""
    images = list(images)
    types = Counter(image.dtype for _, image in images)
    if len(types) > 1:
        usual = types.most_common(1)[0][0]
        text = f"images differ in type: {format_counts(types)}; convert them to one type and range"
        yield text, [name for name, image in images if image.dtype != usual]
    highs = [image.high for _, image in images if image.dtype != "uint8" and image.high > 0]
    if len(types) < 2 and highs and max(highs) > MAX_RATIO * min(highs):
        kind = "float" if not types or "float32" in types else next(iter(types))
        text = f"the maxima of {kind} images range from {min(highs):.4g} to {max(highs):.4g}; rescale the images"
        yield text, []
    isolated = Counter(image.isolated for _, image in images if image.isolated is not None and not image.is_far)
    for number, _ in isolated.most_common(1):
        text = f"images have the value {number:.9g} in many pixels, far from all other values"
        remedy = f"if it stands for no data, add data.source.nodata={number:.9g}"
        yield f"{text}; {remedy}", [name for name, image in images if image.isolated == number and not image.is_far]
    coarse = [name for name, image in images if image.dtype == "float32" and is_coarse(image)]
    text = "images have large values that differ by less than float32 resolves; subtract a constant from all of them"
    if coarse:
        yield text, coarse


def undeclared_nodata(images: Iterable[tuple[str, ImageRange]]) -> tuple[str, list[str]] | None:
    """Return the message that a value has to be declared, and the names of its images; None if none is so far."""
    found = [(name, image.isolated) for name, image in images if image.is_far and image.isolated is not None]
    if not found:
        return None
    number = Counter(value for _, value in found).most_common(1)[0][0]
    text = (
        f"the value {number:.9g} is far from all others; if it means that there is no data, add "
        f"data.source.nodata={number:.9g}; if it is a measurement, add data.source.nodata=none"
    )
    return text, [name for name, value in found if value == number]


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
