"""Select every arm's best value of a swept key on validation."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unet.errors import UserError, did_you_mean
from unet.report.arms import arm_label, format_value
from unet.report.metrics import as_float, mean_and_sd
from unet.report.read_sweep import Run, Sweep


def select_best_values(sweep: Sweep, keys: Sequence[str], key: str) -> tuple[Sweep, list[str], list[str]]:
    """Keep the runs at the value of ``key`` with which their arm has the best mean validation score.

    Arms that differ only in ``key`` are merged; a value without a finished run is not selected. Runs of unknown value
    stay, and are reported as missing.

    Returns the sweep with only these runs, the ``keys`` without ``key``, and a sentence for each arm.

    Raises:
        UserError: the sweep did not vary ``key``, or varied nothing else.
    """
    others = [other for other in keys if other != key]
    if key not in keys or not others:
        raise UserError(
            f"{sweep.folder}: cannot tune {key}{did_you_mean(key, keys)}: it varied {', '.join(keys) or 'nothing'}; "
            f"expected one of these keys, and at least one other factor to compare"
        )
    if not np.isfinite(validation_scores(sweep.runs)).any():
        raise UserError(
            f"{sweep.folder}: cannot tune {key}: no run has the validation score best/val_miou in its metrics.json"
        )
    arms: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in sweep.runs:
        if run.config or key in run.overrides:
            setting = tuple(format_value(run.setting(other)) for other in others)
            arms.setdefault(setting, {}).setdefault(format_value(run.setting(key)), []).append(run)
    dropped: set[Path] = set()
    sentences = []
    for setting, candidates in arms.items():
        scores = {value: mean_and_sd(validation_scores(runs))[0] for value, runs in candidates.items()}
        best = max(scores, key=lambda value: -math.inf if math.isnan(scores[value]) else scores[value])
        dropped |= {run.folder for value, runs in candidates.items() if value != best for run in runs}
        values = ", ".join(f"{value}: {score:.4f}" for value, score in scores.items())
        name = arm_label(dict(zip(others, setting, strict=True)))
        sentences.append(f"{name} is compared at {key}={best} (mean validation mIoU by value: {values}).")
    return replace(sweep, runs=[run for run in sweep.runs if run.folder not in dropped]), others, sentences


def validation_scores(runs: Sequence[Run]) -> np.ndarray:
    """Return the best validation score of every run; nan without one."""
    return np.array([as_float(run.metrics.get("best/val_miou", run.metrics.get("val/miou"))) for run in runs])
