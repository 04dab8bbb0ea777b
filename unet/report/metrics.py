"""Define the titles of metrics, their better direction, and how to read them from a run or from confusion counts."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from unet.report.read_sweep import Run

Array = np.ndarray

TITLES = {"miou": "mIoU", "dice": "Dice", "accuracy": "pixel accuracy", "class_accuracy": "class accuracy"}
LOWER_IS_BETTER = (
    "loss", "checkerboard/*", "boundary/hd95*", "boundary/missed*", "calibration/ece*",
    "time/train_seconds", "memory/*", "model/parameters", "model/flops",
)  # fmt: skip
SEGMENTATION_SCORES = (
    "miou", "iou/*", "dice*", "accuracy", "class_accuracy", "boundary/iou*", "boundary/bf", "boundary/nsd*",
    "trimap/*", "objects/*", "thin/*", "shift/accuracy",
)  # fmt: skip
"""Metrics of which a difference of 0.01 is one point, as of mIoU."""
UNORDERED = ("calibration/gap", "calibration/temperature", "calibration/accuracy/*", "checkerboard/peak_truth/*")
"""Metrics of which neither lower nor higher values are better."""
RUN_KEYS = ("model/", "time/", "memory/")
"""Prefixes of keys without a split."""
SMALL_OBJECTS, OVERFITTING = "recall of small objects", "train minus evaluated mIoU"


def metric_title(metric: str) -> str:
    return TITLES.get(metric, metric)


def is_lower_better(metric: str) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in LOWER_IS_BETTER)


def is_unordered(metric: str) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in UNORDERED)


def is_segmentation_score(metric: str) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in SEGMENTATION_SCORES)


def mean_and_sd(values: Array) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values; nan if there are too few."""
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if len(known) else math.nan
    return mean, float(known.std(ddof=1)) if len(known) > 1 else math.nan


def evaluated_split(runs: Sequence[Run]) -> str:
    """Return ``test``, or ``val`` if no run has a test score."""
    return "test" if any(key.startswith("test/") for run in runs for key in run.metrics) else "val"


def as_float(value: Any) -> float:
    """Return a number as float, nan for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def metric_key(metric: str, split: str) -> str:
    """Return the key in ``metrics.json``."""
    return metric if metric.startswith(RUN_KEYS) else f"{split}/{metric}"


def metric_value(metrics: Mapping[str, Any], split: str, metric: str) -> float:
    """Return a run's value of ``metric``: a key without its split, a pattern (``thin/*``, averaged) or a derived
    metric; nan if the run has no such value."""
    if metric in DERIVED:
        return DERIVED[metric](metrics, split)
    key = metric_key(metric, split)
    if "*" not in key:
        return as_float(metrics.get(key))
    return mean_and_sd(np.array([as_float(value) for name, value in metrics.items() if fnmatchcase(name, key)]))[0]


def object_bins(metrics: Mapping[str, Any], split: str) -> dict[str, list[tuple[float, str, float, Any]]]:
    """Return the size bins of each class in order: (lower bound, range as text, recall, number of objects)."""
    bins: dict[str, list[tuple[float, str, float, Any]]] = {}
    for key, value in metrics.items():
        name = key.removeprefix(f"{split}/objects/")
        if name != key and (match := re.fullmatch(r"(.+)/([\d.]+)-([\w.]*)", name)):
            count = metrics.get(f"{split}/objects_count/{name}")
            bins.setdefault(match[1], []).append((float(match[2]), f"{match[2]}-{match[3]}", as_float(value), count))
    return {name: sorted(entries, key=lambda entry: entry[0]) for name, entries in bins.items()}


def small_objects(metrics: Mapping[str, Any], split: str) -> float:
    """Return the recall of objects of 4 to 64 samples, mean over sizes and classes; smaller ones no network finds."""
    recalls = [r for bins in object_bins(metrics, split).values() for low, _, r, _ in bins if 4 <= low < 64]
    return mean_and_sd(np.array(recalls))[0]


DERIVED: dict[str, Callable[[Mapping[str, Any], str], float]] = {
    SMALL_OBJECTS: small_objects,
    OVERFITTING: lambda metrics, split: as_float(metrics.get("train/miou")) - as_float(metrics.get(f"{split}/miou")),
}


def class_ratio(counts: Array, times: int, denominator: Callable[[Array, Array, Array], Array]) -> Array:
    correct, truth, pred = counts.diagonal(axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    below = denominator(correct, truth, pred)
    return np.where(below > 0, times * correct / np.maximum(below, 1), 0).sum(-1) / (below > 0).sum(-1)


FROM_COUNTS: dict[str, Callable[[Array], Array]] = {
    "miou": lambda counts: class_ratio(counts, 1, lambda correct, truth, pred: truth + pred - correct),
    "dice": lambda counts: class_ratio(counts, 2, lambda correct, truth, pred: truth + pred),
    "class_accuracy": lambda counts: class_ratio(counts, 1, lambda correct, truth, pred: truth),
    "accuracy": lambda counts: counts.diagonal(axis1=-2, axis2=-1).sum(-1) / counts.sum((-1, -2)),
}
"""Metrics of confusion counts (..., K, K), computed as in training: classes without pixels do not count."""
