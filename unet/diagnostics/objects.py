"""Which objects are found, by their size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

Array = np.ndarray
BORDERS = 4 ** np.arange(7)
"""Samples from which each bin begins, up to the next; the last one is open."""
NAMES = [*(f"{low}-{high}" for low, high in pairwise(BORDERS)), f"{BORDERS[-1]}-inf"]


def components(mask: Array) -> Array:
    """(*S) int32: the number of the connected component of every sample of a mask (*S), 0 outside; corners connect."""
    numbers = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3,) * mask.ndim), numbers)
    return numbers


class ObjectRecall:
    """The share of objects that are found, by class and by size.

    An object is a connected component of a class in the truth, samples that touch at a corner included; an image's
    frame and ignored samples cut it. It is found if at least half of its samples are predicted as its class. Its size
    is its samples: a length, an area or a volume. The definition is this project's: semantic segmentation has no
    standard one, and COCO's (https://arxiv.org/abs/1405.0312) needs instances.
    """

    def __init__(self, num_classes: int):
        self.found, self.all = np.zeros((2, num_classes, len(BORDERS)), np.int64)

    def add(self, target: Array, pred: Array) -> None:
        for label in range(len(self.all)):
            objects = components(target == label)
            sizes = np.bincount(objects.ravel())[1:]
            hits = np.bincount(objects[pred == label], minlength=len(sizes) + 1)[1:]
            bins = np.searchsorted(BORDERS, sizes, side="right") - 1
            np.add.at(self.all[label], bins, 1)
            np.add.at(self.found[label], bins, 2 * hits >= sizes)

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """``objects/<class>/<from>-<to>`` of every bin that holds objects, ``objects_count/...`` how many."""
        filled = [(f"{classes[label]}/{NAMES[place]}", (label, place)) for label, place in np.argwhere(self.all)]
        recall = {f"objects/{name}": float(self.found[place] / self.all[place]) for name, place in filled}
        return recall | {f"objects_count/{name}": int(self.all[place]) for name, place in filled}
