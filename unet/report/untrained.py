"""Find the runs that did not train: below the baseline of their data, or without a class that other runs found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet.report.metrics import as_float
from unet.report.read_sweep import Replicate, Run
from unet.report.statistics import MIN_SEEDS

Array = np.ndarray

BASELINE = "baseline/miou"
"""The score of the histogram of colours, which knows no context (scripts/baseline.py)."""
EXPLAINED = 0.8
"""Share of a class's variance over runs that two groups explain at least; of a uniform distribution it is 0.75."""
MIN_FOUND = 0.1
"""Mean IoU of the upper group, at least: a class that no run found divides no runs."""
MAX_EXCLUDED = 1 / 3
"""Share of the runs that a class may exclude, of the arms in which some run found it."""
MAX_RATIO = 1 / 3
"""Mean score of the lower group divided by that of the upper one, at most."""


@dataclass(frozen=True)
class Untrained:
    """A run that did not train, and why: it is below the baseline, or did not find ``missed_class``.

    Attributes:
        is_excluded: it is in no mean. A class that more than a third of the runs did not find excludes none of them:
            then means mix two kinds of runs, and no verdict is given.
        is_typical: its arm has at least six runs, and none found the class. It is compared, since the mean of its arm
            does not mix two kinds of runs, and does not count towards ``MAX_EXCLUDED``.
    """

    arm: int
    replicate: Replicate
    missed_class: str | None
    is_excluded: bool
    is_typical: bool
    reason: str


def find_untrained(compared: Sequence[Mapping[Replicate, Run]], split: str) -> list[Untrained]:
    """Return the runs that did not train, those below the baseline first, then by class."""
    runs = [(arm, seed, run) for arm, by_replicate in enumerate(compared) for seed, run in by_replicate.items()]
    untrained = []
    for arm, seed, run in runs:
        score, baseline = as_float(run.metrics.get(f"{split}/miou")), as_float(run.metrics.get(BASELINE))
        if score < baseline:
            reason = f"{score:.4f} is below the {baseline:.4f} of the histogram baseline"
            untrained.append(Untrained(arm, seed, None, True, False, reason))
    below = {(run.arm, run.replicate) for run in untrained}
    runs = [run for run in runs if run[:2] not in below]
    for key in dict.fromkeys(key for *_, run in runs for key in run.metrics if key.startswith(f"{split}/iou/")):
        scores = np.array([as_float(run.metrics.get(key)) for *_, run in runs])
        limit, name = found_limit(scores), key.removeprefix(f"{split}/iou/")
        arms, missed = np.array([arm for arm, *_ in runs]), scores < limit
        typical = np.array([missed[arms == arm].all() and (arms == arm).sum() >= MIN_SEEDS for arm in arms], bool)
        is_excluded = bool((missed & ~typical).sum() <= MAX_EXCLUDED * (~typical).sum())
        untrained += [
            Untrained(
                *(arm, seed, name, is_excluded and not is_typical, bool(is_typical)),
                f"did not find {name}: IoU {score:.4f}, below {limit:.4f}",
            )
            for (arm, seed, _), score, is_typical in zip(runs, scores, typical, strict=True)
            if score < limit
        ]
    return untrained


def found_limit(values: Array) -> float:
    """Return the limit between runs that did not find a class and runs that did; -inf if there are no two groups.

    The division is that of the least variance within the groups (Otsu 1979, https://doi.org/10.1109/TSMC.1979.4310076).
    """
    ordered = np.sort(values[np.isfinite(values)])
    total = ordered.var() * len(ordered)
    if len(ordered) < 2 or total == 0:
        return -math.inf
    within = [ordered[:cut].var() * cut + ordered[cut:].var() * (len(ordered) - cut) for cut in range(1, len(ordered))]
    cut = 1 + int(np.argmin(within))
    low, high = ordered[:cut].mean(), ordered[cut:].mean()
    if 1 - min(within) / total < EXPLAINED or high < MIN_FOUND or low > MAX_RATIO * high:
        return -math.inf
    return float(ordered[cut - 1] + ordered[cut]) / 2
