"""The values that a mask was drawn with, told from those that a lossy format added between them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unet.data.files import int_if_integral, pack_rgb, to_grayscale, unique_values, unpack_rgb
from unet.data.source import Array

Key = int | float | tuple[int, ...]
"""What a mask stores at a pixel: a number, or a colour."""

RINGING, APART, SHARE, MANY = 12, 40, 0.005, 16
"""JPEG's ripples beside an edge, two levels' least distance (in grey levels), a level's least share of the pixels, and
how many values make a mask suspicious."""


def index_values(pixels: Array, spatial_dims: int) -> tuple[Array, list[Key], Array]:
    """The place of every pixel's key (*S), the keys that occur, and how often each does.

    Args:
        pixels: what a mask file stores, (*S) or (*S, C); colours that are grey count as one channel.
        spatial_dims: how many of its axes are spatial.
    """
    key = int_if_integral
    if pixels.ndim > spatial_dims:
        grey = to_grayscale(pixels)
        pixels, key = (pack_rgb(pixels), unpack_rgb) if grey is None else (grey, int_if_integral)
    present, places = unique_values(pixels)
    places = places.reshape(pixels.shape)
    return places, [key(value) for value in present.tolist()], np.bincount(places.ravel(), minlength=len(present))


def find_levels(counts: Mapping[Key, int]) -> list[Key]:
    """The keys that hold a share of the pixels and lie apart, those of more pixels first."""
    total = sum(counts.values())
    found: list[Key] = []
    for key in sorted(counts, key=lambda key: -counts[key]):
        if counts[key] < SHARE * total:
            break
        if not found or distances([key], found).min() >= APART:
            found.append(key)
    return found


def looks_lossy(counts: Mapping[Key, int]) -> bool:
    """Do many values crowd around a few? True of what was once a JPEG; not of labels, nor of numbered objects."""
    if len(counts) <= MANY or not are_comparable(counts):
        return False
    levels = find_levels(counts)
    if len(levels) < 2:
        return False
    rest = [key for key in counts if key not in levels]
    near = distances(rest, levels).min(1) <= RINGING
    held = np.array([counts[key] for key in rest])
    return bool(2 * held[near].sum() >= held.sum() and held.sum() <= 0.25 * sum(counts.values()))


def are_comparable(keys: Iterable[Key]) -> bool:
    """Numbers all of them, none of them NaN, or colours all of them."""
    keys = list(keys)
    colours = [isinstance(key, tuple) for key in keys]
    return all(colours) or (not any(colours) and bool(np.isfinite(np.array(keys, float)).all()))


def nearest_levels(keys: Sequence[Key], levels: Sequence[Key]) -> list[Key]:
    """The level next to each key, itself where it is one."""
    return [levels[place] for place in distances(keys, levels).argmin(1)]


def distances(keys: Sequence[Key], levels: Sequence[Key]) -> Array:
    """The largest difference in any channel, (keys, levels)."""
    one, other = (np.array(list(values), float).reshape(len(values), -1) for values in (keys, levels))
    return np.abs(one[:, None] - other[None]).max(-1)
