"""Compute all diagnostics of a split; each is an entry of one of two tables."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress

from unet.data.files import FilePair
from unet.data.module import SegmentationData
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.boundary import BoundaryDistance, BoundaryIoU, Trimap
from unet.diagnostics.calibration import calibration
from unet.diagnostics.checkerboard import checkerboard
from unet.diagnostics.information import information
from unet.diagnostics.objects import ObjectRecall
from unet.diagnostics.predictions import eval_mode, predict_split
from unet.diagnostics.shift import shift
from unet.diagnostics.skeleton import SkeletonRecall
from unet.diagnostics.train_score import train_score
from unet.errors import UserError
from unet.task.module import SegmentationTask

Scores = dict[str, float]


LABEL_METRICS = {
    "boundary/iou": BoundaryIoU,
    "boundary/distance": BoundaryDistance,
    "trimap": Trimap,
    "objects": ObjectRecall,
    "thin": SkeletonRecall,
}
"""Diagnostics of labels alone: classes whose argument is the number of classes.

``update(target, pred, spacing)`` adds the labels (*S) uint8 of one image, both ``IGNORE_INDEX`` where the target is,
with the size of a pixel along each axis, None where it is not known.
``scores(classes)`` returns the scores by name, without the split; none of classes that do not occur.
"""

MODEL_PROBES: dict[str, Callable[[SegmentationTask, SegmentationData, str], Scores]] = {
    "shift": shift,
    "checkerboard": checkerboard,
    "information": information,
    "calibration": calibration,
}
"""Diagnostics that run the network; they raise ``UserError`` where they do not apply."""


def diagnose(task: SegmentationTask, data: SegmentationData, split: str) -> Scores:
    """Return every diagnostic of a split as ``<split>/...``, and ``train/miou``.

    A diagnostic that cannot be computed is skipped, and a printed line gives the reason.
    """
    scores: Scores = {}
    train_scores: Scores = {}
    with skip_on_error("all"), eval_mode(task):
        for name, diagnostic in {"predictions": label_scores, **MODEL_PROBES}.items():
            with skip_on_error(name):
                scores |= diagnostic(task, data, split)
        with skip_on_error("train/miou"):
            train_scores = train_score(task, data, split)
    return {f"{split}/{name}": value for name, value in scores.items()} | train_scores


def label_scores(task: SegmentationTask, data: SegmentationData, split: str) -> Scores:
    """Return the scores of all ``LABEL_METRICS``, predicting every image once."""
    metrics = {name: metric(len(task.classes)) for name, metric in LABEL_METRICS.items()}
    for (target, pred), spacing in zip(predict_split(task, data, split), pixel_sizes(data, split), strict=False):
        for name in list(metrics):
            metric = metrics.pop(name)  # a metric that fails is not added again
            with skip_on_error(name):
                metric.update(target, pred, spacing)
                metrics[name] = metric
    return {key: value for metric in metrics.values() for key, value in metric.scores(task.classes).items()}


def pixel_sizes(data: SegmentationData, split: str) -> Iterator[tuple[float, ...] | None]:
    """Yield the size of a pixel of every item of a split along each axis; None unless it is a valid NIfTI file.

    It is in the unit of the header, nearly always mm. ``data.eval_transforms`` may resize images: then it is not known.
    """
    for item in data.samples[split].items:
        size = None
        if isinstance(item.read, FilePair) and not data.transforms["eval"]:
            with suppress(UserError, OSError):  # the file cannot be read any more
                size = item.read.voxel_size()
        sizes = size and size[: data.source.spatial_dims]
        yield sizes if sizes and all(0 < length < math.inf for length in sizes) else None
