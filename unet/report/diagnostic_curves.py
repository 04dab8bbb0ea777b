"""Collect the diagnostics of a sweep's runs: per class, at boundaries, of small objects, under shifts."""

from dataclasses import dataclass

import numpy as np

from unet.report.analysis import SweepAnalysis
from unet.report.metrics import SMALL_OBJECTS, mean_and_sd, object_bins
from unet.report.read_sweep import natural_key

Array = np.ndarray


@dataclass(frozen=True)
class Diagnostic:
    """A metric (a pattern is averaged over the matching keys) with a heading and a description."""

    metric: str
    heading: str
    meaning: str


DIAGNOSTICS = (
    Diagnostic("boundary/iou", "boundary IoU", "IoU of the inner rims of the contours; higher is better"),
    Diagnostic("boundary/bf", "boundary F", "contours matched within a tolerance; higher is better"),
    Diagnostic("boundary/nsd", "NSD", "boundaries within one pixel of each other; higher is better"),
    Diagnostic("boundary/hd95", "HD95", "95th percentile of the distance of the boundaries; lower is better"),
    Diagnostic("thin/*", "thin structures", "skeleton recall, mean over classes; higher is better"),
    Diagnostic(
        SMALL_OBJECTS,
        "small objects",
        "recall of objects of 4 to 64 pixels, mean over sizes and classes; higher is better",
    ),
    Diagnostic("shift/agreement", "shift agreement", "labels unchanged by shifts, mean; higher is better"),
    Diagnostic("shift/worst", "worst shift", "labels unchanged by the worst shift; higher is better"),
    Diagnostic("checkerboard/imbalance", "checkerboard", "variation over grid positions, one color; lower is better"),
    Diagnostic("checkerboard/peak/*", "peaks", "power of the logits at the strides' frequencies, relative; about 1"),
    Diagnostic("checkerboard/peak_truth/*", "peaks of the truth", "the same of the true labels, for comparison"),
    Diagnostic("calibration/ece", "calibration", "difference of confidence and accuracy; lower is better"),
    Diagnostic("information/*", "information", "R² of a linear read-out of the image, mean over levels"),
)


@dataclass(frozen=True)
class Curve:
    """A panel with one line per arm: means over seeds (A, ticks), nan without a value."""

    title: str
    x: str
    y: str
    ticks: list[str]
    lines: Array


def table(analysis: SweepAnalysis) -> tuple[list[Diagnostic], list[list[tuple[float, float]]], list[Diagnostic]]:
    """Return the measured diagnostics, their (mean, sd) for each arm, and the diagnostics that no run has."""
    scores = {diagnostic: analysis.scores_of(diagnostic.metric).values for diagnostic in DIAGNOSTICS}
    present = [diagnostic for diagnostic, values in scores.items() if np.isfinite(values).any()]
    rows = [[mean_and_sd(scores[diagnostic][arm]) for diagnostic in present] for arm in range(len(analysis.arms))]
    return present, rows, [diagnostic for diagnostic in DIAGNOSTICS if diagnostic not in present]


def mean_lines(analysis: SweepAnalysis, metrics: list[str]) -> Array:
    """Return means over seeds (A, metrics)."""
    columns = [[mean_and_sd(row)[0] for row in analysis.scores_of(metric).values] for metric in metrics]
    return np.array(columns).reshape(len(metrics), len(analysis.arms)).T


def suffixes(analysis: SweepAnalysis, prefix: str) -> list[str]:
    """Return the ends of the metric keys that begin with ``prefix``, in the runs' order."""
    prefix = f"{analysis.split}/{prefix}/"
    keys = (key for runs in analysis.runs for run in runs.values() for key in run.metrics)
    return list(dict.fromkeys(key.removeprefix(prefix) for key in keys if key.startswith(prefix)))


def curves(analysis: SweepAnalysis) -> list[Curve]:
    """Return recall by object size for each class (the ticks show the number of objects), and the other curves."""
    by_run = [object_bins(run.metrics, analysis.split) for runs in analysis.runs for run in runs.values()]
    bins = {name: entries for run in reversed(by_run) for name, entries in run.items()}
    panels = []
    for name, entries in bins.items():
        ticks = [f"{low:g}\nn={int(n)}" if isinstance(n, int | float) else f"{low:g}" for low, _, _, n in entries]
        lines = mean_lines(analysis, [f"objects/{name}/{size}" for _, size, _, _ in entries])
        panels.append(Curve(name, "object size (pixels), from", "recall", ticks, lines))
    for key, title, x, y in (
        ("trimap", "near the boundaries", "distance to a true boundary, up to", "accuracy"),
        ("information", "information by level", "level", "information"),
    ):
        if ticks := sorted(suffixes(analysis, key), key=natural_key):
            panels.append(Curve(title, x, y, ticks, mean_lines(analysis, [f"{key}/{tick}" for tick in ticks])))
    return panels
