"""Measure the quality of a segmentation at its boundaries, from labels alone, in any number of dimensions.

Every ``update`` takes a target and a prediction (*S) of uint8 labels, both ``IGNORE_INDEX`` at the same pixels. There
is no boundary next to ignored pixels: the class on the other side is unknown.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from unet.labels import IGNORE_INDEX

EPSILON = 1e-9
"""A distance equal to a tolerance is within it, whatever the rounding."""


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

    def update(self, target: np.ndarray, pred: np.ndarray, spacing: Sequence[float] | None = None) -> None:
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


class BoundaryDistance:
    """Distances between the true and the predicted boundary of a class: BF score, NSD, HD95.

    They are computed per image and class with a boundary in the truth. Where none is predicted, BF and NSD are 0, and
    the image is counted in ``missed`` instead of HD95.

    - BF: F1 of the boundary pixels within ``ratio`` of the image diagonal of the other boundary, both in the unit of
      ``spacing`` (or pixels), averaged over the classes of an image, then over images. Source: Csurka et al. 2013, What
      is a good evaluation measure for semantic segmentation? (BMVC), with the tolerance and the averaging of SegNet's
      Table 1, https://arxiv.org/abs/1511.00561.
    - NSD, the normalized surface distance: the fraction of the pixels of both boundaries that are in the other one or
      share a face with one of its pixels. Source: Nikolov et al. 2018, https://arxiv.org/abs/1809.04430.
    - HD95: the larger one of the 95th percentiles of the distances in the two directions, in the unit of ``spacing``
      (or pixels). Source: the robust Hausdorff distance as defined by Maier-Hein et al. 2024, Metrics reloaded,
      https://arxiv.org/abs/2206.01653.
    """

    def __init__(self, num_classes: int, ratio: float = 0.0075):
        self.ratio = ratio
        self.image_f1: list[float] = []
        # By class, one value per image; hd95 only of those that are not missed.
        self.nsd, self.hd95, self.missed = ([[] for _ in range(num_classes)] for _ in range(3))

    def update(self, target: np.ndarray, pred: np.ndarray, spacing: Sequence[float] | None = None) -> None:
        spacing = spacing or (1.0,) * target.ndim
        tolerance = self.ratio * math.hypot(*(n * size for n, size in zip(target.shape, spacing, strict=True)))
        target_boundary, pred_boundary = boundary_mask(target), boundary_mask(pred)
        f1 = []
        for label in np.unique(target[target_boundary]):
            true, predicted = target_boundary & (target == label), pred_boundary & (pred == label)
            self.missed[label].append(not predicted.any())
            if not predicted.any():
                f1.append(0.0)
                self.nsd[label].append(0.0)
                continue
            distances = distances_between(predicted, true, spacing), distances_between(true, predicted, spacing)
            precision, recall = (float(np.mean(values <= tolerance + EPSILON)) for values in distances)
            f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
            near = (predicted & ndimage.binary_dilation(true)).sum() + (true & ndimage.binary_dilation(predicted)).sum()
            self.nsd[label].append(float(near / (predicted.sum() + true.sum())))
            self.hd95[label].append(max(float(np.percentile(values, 95)) for values in distances))
        if f1:
            self.image_f1.append(float(np.mean(f1)))

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``boundary/bf``, and ``boundary/nsd``, ``hd95``, ``missed`` per class and their means over classes."""
        scores = {"boundary/bf": float(np.mean(self.image_f1))} if self.image_f1 else {}
        for name, values in {"nsd": self.nsd, "hd95": self.hd95, "missed": self.missed}.items():
            means = {label: float(np.mean(v)) for label, v in zip(classes, values, strict=True) if v}
            if means:
                scores[f"boundary/{name}"] = float(np.mean(list(means.values())))
            scores |= {f"boundary/{name}/{label}": value for label, value in means.items()}
        return scores


def distances_between(mask: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the distance of every pixel of a mask to the nearest one of ``reference``; neither is empty."""
    box = ndimage.find_objects((mask | reference).astype(np.uint8))[0]  # contains all pixels that matter
    distance: Any = ndimage.distance_transform_edt(~reference[box], sampling=spacing)
    return distance[mask[box]]


class Trimap:
    """Accuracy within r pixels of a true boundary, for increasing r.

    The two pixels on either side of a boundary are within 1 of it. Sources: Kohli et al. 2009, Robust higher order
    potentials for enforcing label consistency (IJCV 82), and Krähenbühl and Koltun 2011,
    https://arxiv.org/abs/1210.5644.
    """

    radii = (1, 2, 4, 8, 16)

    def __init__(self, num_classes: int):
        self.correct, self.total = np.zeros((2, len(self.radii)), np.int64)

    def update(self, target: np.ndarray, pred: np.ndarray, spacing: Sequence[float] | None = None) -> None:
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
