"""What the runs say beside the one score: per class, at boundaries, of small objects, under shifts."""

import math
import re
from dataclasses import dataclass

import numpy as np

from unet.report.measures import SMALLEST_OBJECTS, object_bins
from unet.report.study import Study

Array = np.ndarray


@dataclass(frozen=True)
class Diagnostic:
    """Attributes: the metric (a pattern is averaged over its keys), its heading, and what it tells."""

    metric: str
    heading: str
    meaning: str


DIAGNOSTICS = (
    Diagnostic("boundary/iou", "boundary IoU", "IoU of the rims inside the contours; higher is better"),
    Diagnostic("boundary/bf", "boundary F", "contours met within a tolerance; higher is better"),
    Diagnostic(
        "thin/*", "thin structures", "share of the skeletons that is right, mean over classes; higher is better"
    ),
    Diagnostic(
        SMALLEST_OBJECTS, "smallest objects", "share found in each class's smallest range of sizes; higher is better"
    ),
    Diagnostic("shift/agreement", "shift agreement", "labels that stay when the image moves, mean; higher is better"),
    Diagnostic("shift/worst", "worst shift", "the same at the worst shift; higher is better"),
    Diagnostic(
        "checkerboard/imbalance", "checkerboard", "how the places of the grid differ on one colour; lower is better"
    ),
    Diagnostic(
        "checkerboard/peak/*", "peaks", "power of the logits at the strides' frequencies over that around them; about 1"
    ),
    Diagnostic("checkerboard/peak_truth/*", "peaks of the truth", "the same of the true labels, for comparison"),
    Diagnostic("information/*", "information", "R² of a linear read-out of the image, mean over levels"),
)


@dataclass(frozen=True)
class Curve:
    """A panel: one line an arm over shared places.

    Attributes:
        title, x, y: headings.
        places: texts along the x axis.
        lines: (A, places), means over seeds; nan where an arm has none.
    """

    title: str
    x: str
    y: str
    places: list[str]
    lines: Array


def table(study: Study) -> tuple[list[Diagnostic], list[list[tuple[float, float]]], list[Diagnostic]]:
    """Diagnostics that some run has, per arm their (mean, standard deviation), and those that no run has."""
    scores = [(diagnostic, study.of(diagnostic.metric).values) for diagnostic in DIAGNOSTICS]
    present = [(diagnostic, values) for diagnostic, values in scores if np.isfinite(values).any()]
    absent = [diagnostic for diagnostic, values in scores if not np.isfinite(values).any()]
    rows = [[mean_and_spread(values[arm]) for _, values in present] for arm in range(len(study.arms))]
    return [diagnostic for diagnostic, _ in present], rows, absent


def mean_and_spread(values: Array) -> tuple[float, float]:
    """Mean and standard deviation of the finite ones; nan of too few."""
    known = values[np.isfinite(values)]
    return (
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
    )


def mean_lines(study: Study, metrics: list[str]) -> Array:
    """(A, metrics): means over seeds."""
    columns = [[mean_and_spread(row)[0] for row in study.of(metric).values] for metric in metrics]
    return np.array(columns).T


def class_scores(study: Study) -> tuple[list[str], Array]:
    """Classes in the runs' order, and every arm's mean IoU (A, classes)."""
    prefix = f"{study.split}/iou/"
    names = dict.fromkeys(
        key.removeprefix(prefix)
        for runs in study.runs
        for run in runs.values()
        for key in run.metrics
        if key.startswith(prefix)
    )
    return list(names), mean_lines(study, [f"iou/{name}" for name in names]) if names else np.zeros(
        (len(study.arms), 0)
    )


def object_curves(study: Study) -> list[Curve]:
    """Recall over the size of objects, a panel a class; the places say how many objects there are."""
    found = [object_bins(run.metrics, study.split) for runs in study.runs for run in runs.values()]
    bins = {name: entries for run in reversed(found) for name, entries in run.items()}
    curves = []
    for name, entries in bins.items():
        places = [f"{low:g}\nn={int(n)}" if isinstance(n, int | float) else f"{low:g}" for low, _, _, n in entries]
        metrics = [f"objects/{name}/{text}" for _, text, _, _ in entries]
        curves.append(Curve(name, "size of the object (samples), from", "recall", places, mean_lines(study, metrics)))
    return curves


def trimap_curve(study: Study) -> list[Curve]:
    """Accuracy near the true boundaries, over the distance to them; empty where it was not measured."""
    prefix = f"{study.split}/trimap/"
    keys = {key for runs in study.runs for run in runs.values() for key in run.metrics if key.startswith(prefix)}
    widths = sorted((key.removeprefix(prefix) for key in keys), key=first_number)
    if not widths:
        return []
    lines = mean_lines(study, [f"trimap/{width}" for width in widths])
    return [Curve("near the boundaries", "distance to a true boundary (samples), up to", "accuracy", widths, lines)]


def level_curves(study: Study) -> list[Curve]:
    """Information kept at every level, where it was measured."""
    prefix = f"{study.split}/information/"
    keys = {key for runs in study.runs for run in runs.values() for key in run.metrics if key.startswith(prefix)}
    levels = sorted((key.removeprefix(prefix) for key in keys), key=first_number)
    lines = mean_lines(study, [f"information/{level}" for level in levels]) if levels else None
    return [] if lines is None else [Curve("information by level", "level", "information", levels, lines)]


def first_number(text: str) -> tuple[float, str]:
    match = re.search(r"\d+(\.\d+)?", text)
    return (float(match[0]) if match else math.inf, text)
