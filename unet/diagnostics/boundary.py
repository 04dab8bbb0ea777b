"""Measure the quality of a segmentation at its boundaries, from labels alone, in any number of dimensions.

Every ``update`` takes a target and a prediction (*S) of uint8 labels, both ``IGNORE_INDEX`` at the same pixels. There
is no boundary next to ignored pixels: the class on the other side is unknown.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet.labels import IGNORE_INDEX


def boundary_mask(labels: np.ndarray) -> np.ndarray:
    """Return the pixels (*S) bool that share a face with a pixel of another class."""
    boundary = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        lines, marks = np.moveaxis(labels, axis, 0), np.moveaxis(boundary, axis, 0)
        differ = (lines[:-1] != lines[1:]) & (lines[:-1] != IGNORE_INDEX) & (lines[1:] != IGNORE_INDEX)
        marks[:-1] |= differ
        marks[1:] |= differ
    return boundary


def distance_to(mask: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of every pixel (*S) to the nearest pixel of a mask (*S) that is not empty."""
    return np.asarray(ndimage.distance_transform_edt(~mask))


class BoundaryIoU:
    """IoU of the inner rims of the true and the predicted regions of a class, from counts over a split.

    A rim contains the pixels of the class within ``ratio`` of the image diagonal (at least one pixel) of the contour,
    by the chessboard distance; the image frame is part of a contour, as in the authors' code. Source: Cheng et al.
    2021, Boundary IoU, https://arxiv.org/abs/2103.16562.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02):
        self.ratio = ratio
        self.intersection, self.union, self.true = np.zeros((3, num_classes), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        width = max(1, round(self.ratio * math.hypot(*target.shape)))
        ignored = target == IGNORE_INDEX
        for label in np.union1d(target[~ignored], pred[~ignored]):
            true, predicted = (inner_rim(labels == label, ignored, width) for labels in (target, pred))
            self.intersection[label] += np.count_nonzero(true & predicted)
            self.union[label] += np.count_nonzero(true | predicted)
            self.true[label] += np.count_nonzero(true)

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``boundary/iou/<class>`` of the classes with a true contour, and ``boundary/iou``, their mean."""
        counts = zip(classes, self.intersection, self.union, self.true, strict=True)
        iou = {name: float(intersection / union) for name, intersection, union, true in counts if true}
        mean = {"boundary/iou": float(np.mean(list(iou.values())))} if iou else {}
        return mean | {f"boundary/iou/{name}": value for name, value in iou.items()}


def inner_rim(mask: np.ndarray, ignored: np.ndarray, width: int) -> np.ndarray:
    """Return a mask (*S) minus its erosion by ``width`` pixels; ignored pixels are inside, the frame is outside."""
    inside = ndimage.minimum_filter((mask | ignored).astype(np.uint8), 2 * width + 1, mode="constant", cval=0)
    return mask & (inside == 0)


class BoundaryF1:
    """The BF score: F1 of the boundary pixels that lie near a boundary pixel of the other map.

    It is computed per class with a boundary in the truth, averaged over the classes of an image, then over images. The
    tolerance is ``ratio`` of the image diagonal. Source: Csurka et al. 2013, What is a good evaluation measure for
    semantic segmentation? (BMVC), with the tolerance and the averaging of SegNet's Table 1,
    https://arxiv.org/abs/1511.00561.
    """

    def __init__(self, num_classes: int, ratio: float = 0.0075):
        self.ratio = ratio
        self.image_scores: list[float] = []

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        tolerance = self.ratio * math.hypot(*target.shape)
        target_boundary, pred_boundary = boundary_mask(target), boundary_mask(pred)
        f1 = []
        for label in np.unique(target[target_boundary]):
            true, predicted = target_boundary & (target == label), pred_boundary & (pred == label)
            precision, recall = fraction_near(predicted, true, tolerance), fraction_near(true, predicted, tolerance)
            f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        if f1:
            self.image_scores.append(float(np.mean(f1)))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``boundary/bf`` if any image has a boundary."""
        return {"boundary/bf": float(np.mean(self.image_scores))} if self.image_scores else {}


def fraction_near(mask: np.ndarray, reference: np.ndarray, tolerance: float) -> float:
    """Return the fraction of a mask within ``tolerance`` of the ``reference`` mask; 0 if either is empty."""
    if not mask.any() or not reference.any():
        return 0.0
    return float(np.mean(distance_to(reference)[mask] <= tolerance))


class Trimap:
    """Accuracy within r pixels of a true boundary, for increasing r.

    The two pixels on either side of a boundary are within 1 of it. Sources: Kohli et al. 2009, Robust higher order
    potentials for enforcing label consistency (IJCV 82), and Krähenbühl and Koltun 2011,
    https://arxiv.org/abs/1210.5644.
    """

    radii = (1, 2, 4, 8, 16)

    def __init__(self, num_classes: int):
        self.correct, self.total = np.zeros((2, len(self.radii)), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray) -> None:
        boundary = boundary_mask(target)
        if not boundary.any():
            return
        distance = distance_to(boundary)
        for index, radius in enumerate(self.radii):
            band = (distance < radius) & (target != IGNORE_INDEX)
            self.total[index] += np.count_nonzero(band)
            self.correct[index] += np.count_nonzero(band & (pred == target))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``trimap/<r>`` if any image has a boundary."""
        counts = zip(self.radii, self.correct, self.total, strict=True)
        return {f"trimap/{radius}": float(correct / total) for radius, correct, total in counts if total}
