"""The values of masks, and the levels among them: the values before a lossy format added others."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unet.data.mask_file import Key
from unet.data.source import Array

MAX_RINGING = 12  # grey levels by which JPEG's ringing changes values beside an edge
MIN_DISTANCE = 40  # grey levels between two levels of a lossy mask
MIN_COLOR_DISTANCE = 64  # the same for colours, whose edges JPEG blurs more; VOC's are 64 apart
MIN_FRACTION = 0.005  # the fraction of the pixels that a level has at least
MAX_SOUND_VALUES = 16  # number of values up to which a mask is not considered lossy


def find_levels(counts: Mapping[Key, int]) -> list[Key]:
    """Return the keys that have ``MIN_FRACTION`` of the pixels and are ``MIN_DISTANCE`` apart, most frequent first.

    A lossy format spreads a colour over many near ones, so those within ``MAX_RINGING`` of a colour count as well.
    """
    total = sum(counts.values())
    levels: list[Key] = []
    for key in sorted(counts, key=lambda key: -counts[key]):
        is_color = isinstance(key, tuple)
        if counts[key] < MIN_FRACTION * total / (10 if is_color else 1):
            break
        if levels and distances([key], levels).min() < (MIN_COLOR_DISTANCE if is_color else MIN_DISTANCE):
            continue
        if not is_color or count_near(counts, key) >= MIN_FRACTION * total:
            levels.append(key)
    return levels


def count_near(counts: Mapping[Key, int], color: Key) -> int:
    """Return the number of pixels within ``MAX_RINGING`` of a colour."""
    near = distances(list(counts), [color])[:, 0] <= MAX_RINGING
    return int(np.array(list(counts.values()))[near].sum())


def looks_lossy(counts: Mapping[Key, int]) -> bool:
    """Return whether many values crowd around a few, as in a JPEG, unlike class labels or instance ids."""
    if len(counts) <= MAX_SOUND_VALUES or not are_comparable(counts):
        return False
    levels = find_levels(counts)
    if len(levels) < 2:
        return False
    between = [key for key in counts if key not in levels]
    near = distances(between, levels).min(1) <= MAX_RINGING
    pixels = np.array([counts[key] for key in between])
    return bool(2 * pixels[near].sum() >= pixels.sum() and pixels.sum() <= 0.25 * sum(counts.values()))


def are_comparable(keys: Iterable[Key]) -> bool:
    """Return whether all keys are colours, or all are finite numbers."""
    keys = list(keys)
    colors = [isinstance(key, tuple) for key in keys]
    if any(isinstance(key, str) for key in keys):
        return False
    return all(colors) or (not any(colors) and bool(np.isfinite(np.array(keys, float)).all()))


def nearest_levels(keys: Sequence[Key], levels: Sequence[Key]) -> list[Key]:
    """Return the level nearest to each key."""
    return [levels[index] for index in distances(keys, levels).argmin(1)]


def distances(keys: Sequence[Key], levels: Sequence[Key]) -> Array:
    """Return the largest difference in any channel, (keys, levels)."""
    first, second = (np.array(list(values), float).reshape(len(values), -1) for values in (keys, levels))
    return np.abs(first[:, None] - second[None]).max(-1)
