"""Warn of runs whose training or evaluation makes a comparison doubtful."""

from collections.abc import Sequence

from unet.report.metrics import as_float
from unet.report.read_sweep import Run

FOUND = 0.01
"""IoU from which on a class counts as found at all."""


def training_warnings(runs: Sequence[Run], split: str) -> list[str]:
    """Return a warning for classes that no run found, and one if most runs were still improving."""
    warnings = []
    prefix = f"{split}/iou/"
    classes = list(dict.fromkeys(key for run in runs for key in run.metrics if key.startswith(prefix)))
    absent = [
        key.removeprefix(prefix) for key in classes if all(as_float(run.metrics.get(key)) < FOUND for run in runs)
    ]
    if absent:
        rest = len(classes) - len(absent)
        warnings.append(
            f"No run found {', '.join(absent)} (IoU below {FOUND}): differences in mIoU come from {rest} of "
            f"{len(classes)} classes."
        )
    steps = [
        (run.metrics["best/step"], run.metrics["steps"]) for run in runs if {"best/step", "steps"} <= set(run.metrics)
    ]
    last = sum(best == total for best, total in steps)
    if last > len(steps) / 2:
        warnings.append(
            f"{last} of {len(steps)} runs were best at their last validation: a longer training may order the arms "
            f"differently."
        )
    return warnings
