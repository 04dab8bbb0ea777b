"""How good a segmentation is at its boundaries, from labels alone, in any number of dimensions.

Every ``add`` here takes a target and a prediction (*S) of uint8 labels, both ``IGNORE_INDEX`` at the same samples.
Next to those there is no boundary: nobody said what is on the other side.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet.labels import IGNORE_INDEX

Array = np.ndarray


def edges(labels: Array) -> Array:
    """Labels (*S) -> (*S) bool: samples with a neighbour of another class across one of their faces."""
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        line, marks = np.moveaxis(labels, axis, 0), np.moveaxis(found, axis, 0)
        one, other = line[:-1], line[1:]
        differ = (one != other) & (one != IGNORE_INDEX) & (other != IGNORE_INDEX)
        marks[:-1] |= differ
        marks[1:] |= differ
    return found


def diagonal(labels: Array) -> float:
    """The length of an image's diagonal in samples; of a line, its own."""
    return math.hypot(*labels.shape)


def distances(samples: Array) -> Array:
    """Euclidean distance of every sample of (*S) to the nearest of ``samples`` (*S) bool, of which there is one."""
    return np.asarray(ndimage.distance_transform_edt(~samples))


class BoundaryIoU:
    """IoU of the rims that truth and prediction of a class have inside their contours, from counts over a split.

    A rim holds the samples of the class within ``ratio`` of the diagonal of its contour, a sample at least, by the
    chessboard distance; the image's frame is part of a contour, as in the authors' code. Source: Cheng et al. 2021,
    Boundary IoU, https://arxiv.org/abs/2103.16562.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02):
        self.ratio = ratio
        self.both, self.either, self.true = np.zeros((3, num_classes), np.int64)

    def add(self, target: Array, pred: Array) -> None:
        width = max(1, round(self.ratio * diagonal(target)))
        void = target == IGNORE_INDEX
        for label in np.union1d(target[~void], pred[~void]):
            true, predicted = (rim(labels == label, void, width) for labels in (target, pred))
            self.both[label] += np.count_nonzero(true & predicted)
            self.either[label] += np.count_nonzero(true | predicted)
            self.true[label] += np.count_nonzero(true)

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """``boundary/iou/<class>`` of the classes that have a contour in the truth, ``boundary/iou`` their mean."""
        counts = zip(classes, self.both, self.either, self.true, strict=True)
        iou = {name: float(both / either) for name, both, either, true in counts if true}
        mean = {"boundary/iou": float(np.mean(list(iou.values())))} if iou else {}
        return mean | {f"boundary/iou/{name}": value for name, value in iou.items()}


def rim(mask: Array, void: Array, width: int) -> Array:
    """The samples of ``mask`` (*S) that a cube of ``width`` samples to every side does not keep inside it.

    This is the mask less its erosion. What is ``void`` counts as inside, and what is beyond the frame as outside.
    """
    inside = ndimage.minimum_filter((mask | void).astype(np.uint8), 2 * width + 1, mode="constant", cval=0)
    return mask & (inside == 0)


class BoundaryF1:
    """The BF score: F1 of boundary samples that have one of the other map's near.

    Per class with a boundary in the truth, averaged over those of an image, then over images. Near is within ``ratio``
    of the diagonal. Source: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation? (BMVC),
    with the tolerance and the averaging of SegNet's Table 1, https://arxiv.org/abs/1511.00561.
    """

    def __init__(self, num_classes: int, ratio: float = 0.0075):
        self.ratio = ratio
        self.images: list[float] = []

    def add(self, target: Array, pred: Array) -> None:
        tolerance = self.ratio * diagonal(target)
        true, predicted = edges(target), edges(pred)
        f1 = []
        for label in np.unique(target[true]):
            here, there = true & (target == label), predicted & (pred == label)
            precision, recall = share_near(there, here, tolerance), share_near(here, there, tolerance)
            f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        if f1:
            self.images.append(float(np.mean(f1)))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """``boundary/bf``, where any image has a boundary."""
        return {"boundary/bf": float(np.mean(self.images))} if self.images else {}


def share_near(samples: Array, others: Array, tolerance: float) -> float:
    """The share of ``samples`` (*S) with one of ``others`` within ``tolerance``; 0 where either is empty."""
    if not samples.any() or not others.any():
        return 0.0
    return float(np.mean(distances(others)[samples] <= tolerance))


class Trimap:
    """Accuracy within r samples of a true boundary, for growing r: how far its difficulty reaches.

    The two samples on either side of a boundary are within 1 of it. Sources: Kohli et al. 2009, Robust higher order
    potentials for enforcing label consistency (IJCV 82), and Krähenbühl and Koltun 2011,
    https://arxiv.org/abs/1210.5644.
    """

    radii = (1, 2, 4, 8, 16)

    def __init__(self, num_classes: int):
        self.right, self.all = np.zeros((2, len(self.radii)), np.int64)

    def add(self, target: Array, pred: Array) -> None:
        border = edges(target)
        if not border.any():
            return
        distance = distances(border)
        for place, radius in enumerate(self.radii):
            band = (distance < radius) & (target != IGNORE_INDEX)
            self.all[place] += np.count_nonzero(band)
            self.right[place] += np.count_nonzero(band & (pred == target))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """``trimap/<r>``, where any image has a boundary."""
        counts = zip(self.radii, self.right, self.all, strict=True)
        return {f"trimap/{radius}": float(right / total) for radius, right, total in counts if total}
