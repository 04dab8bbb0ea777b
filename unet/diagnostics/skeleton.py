"""Measure the recall of thin structures."""

from collections.abc import Sequence

import numpy as np
from skimage.morphology import skeletonize


class SkeletonRecall:
    """The fraction of the skeleton pixels of a class's true regions that are predicted as the class.

    A skeleton is one pixel wide whatever the width of its region: a long thin river weighs more than the sea. A line
    has no skeleton, so there is no score in 1-D. Source: the topology sensitivity of Shit et al. 2021, clDice,
    https://arxiv.org/abs/2003.07311.
    """

    def __init__(self, num_classes: int):
        self.correct, self.total = np.zeros((2, num_classes), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray, spacing: Sequence[float] | None = None) -> None:
        if target.ndim == 1:
            return
        for label in range(len(self.total)):
            mask = target == label
            if mask.any():
                skeleton = skeletonize(mask)
                self.total[label] += np.count_nonzero(skeleton)
                self.correct[label] += np.count_nonzero(skeleton & (pred == label))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``thin/<class>`` of the classes in the truth."""
        counts = zip(classes, self.correct, self.total, strict=True)
        return {f"thin/{name}": float(correct / total) for name, correct, total in counts if total}
