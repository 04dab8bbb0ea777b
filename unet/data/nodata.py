"""Find values that probably stand for no data, such as -9999, in images that do not declare them."""

import numpy as np

from unet.data.source import Array

DISTANCE = 10
"""A value stands out if it is farther from all others than this many times their range."""
MIN_SHARE = 0.01
"""The fraction of a channel that such a value has at least, unless it is the only negative one."""


def find_undeclared_nodata(image: Array) -> float | None:
    """Return a value of an image (*S, C) that probably stands for no data; None if there is none.

    It is the smallest or the largest value of a channel and far from all others. Images of 8 bits have no such value:
    black and white are colours. Neither is 0 one, which images have outside of an object.
    """
    if image.dtype == np.uint8:
        return None
    for channel in range(image.shape[-1]):
        values = image[..., channel].ravel()
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if not values.size:
            continue
        low, high = values.min(), values.max()
        for value, others in ((low, values[values > low]), (high, values[values < high])):
            if not others.size or value == 0:
                continue
            begin, end = float(others.min()), float(others.max())
            share = 1 - others.size / values.size
            stands_out = max(begin - float(value), float(value) - end) > DISTANCE * (end - begin) > 0
            if stands_out and (value < 0 <= begin or share >= MIN_SHARE):
                return float(value)
    return None
