"""Measure the recall of objects by their size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

BIN_STARTS = 4 ** np.arange(7)
"""Smallest size of each bin in pixels; the last bin is open."""
BIN_NAMES = [*(f"{low}-{high}" for low, high in pairwise(BIN_STARTS)), f"{BIN_STARTS[-1]}-inf"]


def components(mask: np.ndarray) -> np.ndarray:
    """Return the number (*S) int32 of each pixel's connected component of a mask, 0 outside; corners connect."""
    numbers = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3,) * mask.ndim), numbers)
    return numbers


class ObjectRecall:
    """The fraction of objects that are detected, by class and by size.

    An object is a connected component of a class in the truth; pixels that touch at a corner are connected, and the
    image frame and ignored pixels cut it. It is detected if at least half of its pixels are predicted as its class. Its
    size is its number of pixels: a length, an area or a volume. The definition is this project's: semantic segmentation
    has no standard one, and COCO's (https://arxiv.org/abs/1405.0312) needs instances.
    """

    def __init__(self, num_classes: int):
        self.detected, self.total = np.zeros((2, num_classes, len(BIN_STARTS)), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray, spacing: Sequence[float] | None = None) -> None:
        for label in range(len(self.total)):
            objects = components(target == label)
            sizes = np.bincount(objects.ravel())[1:]
            hits = np.bincount(objects[pred == label], minlength=len(sizes) + 1)[1:]
            bins = np.searchsorted(BIN_STARTS, sizes, side="right") - 1
            np.add.at(self.total[label], bins, 1)
            np.add.at(self.detected[label], bins, 2 * hits >= sizes)

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``objects/<class>/<from>-<to>`` and ``objects_count/...`` of every bin that has objects."""
        cells = {f"{classes[label]}/{BIN_NAMES[size]}": (label, size) for label, size in np.argwhere(self.total)}
        recall = {f"objects/{name}": float(self.detected[cell] / self.total[cell]) for name, cell in cells.items()}
        return recall | {f"objects_count/{name}": int(self.total[cell]) for name, cell in cells.items()}
