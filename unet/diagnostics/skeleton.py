"""Whether thin structures are kept."""

from collections.abc import Sequence

import numpy as np
from skimage.morphology import skeletonize

Array = np.ndarray


class SkeletonRecall:
    """The share of the samples on the skeletons of a class's true regions that are predicted as the class.

    However wide a region is, its skeleton is one sample wide: a long thin river weighs more than the sea. A line has no
    skeleton, so in 1-D there is no such figure. Source: the topology sensitivity of Shit et al. 2021, clDice,
    https://arxiv.org/abs/2003.07311.
    """

    def __init__(self, num_classes: int):
        self.found, self.all = np.zeros((2, num_classes), np.int64)

    def add(self, target: Array, pred: Array) -> None:
        if target.ndim == 1:
            return
        for label in range(len(self.all)):
            mask = target == label
            if mask.any():
                skeleton = skeletonize(mask)
                self.all[label] += np.count_nonzero(skeleton)
                self.found[label] += np.count_nonzero(skeleton & (pred == label))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """``thin/<class>`` of the classes in the truth."""
        counts = zip(classes, self.found, self.all, strict=True)
        return {f"thin/{name}": float(found / total) for name, found, total in counts if total}
