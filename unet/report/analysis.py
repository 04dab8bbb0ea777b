"""Read a sweep and compare its arms."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import unet.report.statistics as statistics
from unet.errors import UserError, did_you_mean
from unet.report.arms import (
    REPEAT,
    Arm,
    find_factors,
    format_replicate,
    group_runs,
    replicate_unit,
    replicates_without_run,
    sort_replicates,
    usual_repeat_label,
)
from unet.report.comparison import (
    Contrast,
    Effects,
    Scores,
    compare_pair,
    compare_repeats,
    correct_family,
    estimate_effects,
)
from unet.report.image_resampling import resample_images
from unet.report.metrics import evaluated_split, is_lower_better, metric_key, metric_title, metric_value
from unet.report.provenance import provenance_warnings
from unet.report.read_sweep import Replicate, Run, Sweep, read_sweep
from unet.report.tuning import select_best_values

Array = np.ndarray

Pairs = list[tuple[int, int, Contrast]]


@dataclass(frozen=True)
class MissingRun:
    """A run that is excluded from the statistics, with the reason and its command."""

    name: str
    arm: str
    replicate: Replicate | None
    state: str
    reason: str
    command: str


@dataclass(frozen=True)
class SweepAnalysis:
    """The contents of a report.

    Attributes:
        factors: the keys that vary. ``dependent_keys``: keys that change with one of them.
        main: the indices of arms that have runs and are no repeats.
        runs: for each arm its compared runs by seed, or by fold and seed.
        images: the number of resampled images; 0 if only seeds were resampled.
        reference: the arm that all others are compared with; None compares every pair.
        pairs: the compared pairs, each as (first, second, contrast of first - second).
        repeats: the pairs of equal arms, which are not part of the family.
        effects: main effects and interaction of exactly two factors, else None.
        warnings: differences between runs besides the factors. ``tuning_notes``: the selected value of every arm.
    """

    sweep: Sweep
    metric: str
    split: str
    factors: list[str]
    dependent_keys: dict[str, str]
    arms: list[Arm]
    main: list[int]
    runs: list[dict[Replicate, Run]]
    scores: Scores
    images: int
    reference: int | None
    pairs: Pairs
    repeats: Pairs
    effects: Effects | None
    missing_runs: list[MissingRun]
    warnings: list[str] = field(default_factory=list)
    tuning_notes: list[str] = field(default_factory=list)

    @property
    def metric_name(self) -> str:
        """The compared metric with its split, such as ``test mIoU``."""
        return f"{self.split} {metric_title(self.metric)}"

    @property
    def unit(self) -> str:
        """What the runs of an arm differ in: ``seed``, ``fold``, or ``replicate`` for folds with several seeds."""
        return replicate_unit(self.scores.seeds)

    @property
    def contrasts(self) -> list[Contrast]:
        return [contrast for *_, contrast in self.pairs]

    @property
    def family(self) -> list[Contrast]:
        """The contrasts with a common seed, which are corrected together."""
        return [contrast for contrast in self.contrasts if contrast.seeds]

    @property
    def can_decide(self) -> bool:
        """Return whether there are enough seeds to detect any difference."""
        return any(contrast.is_resolvable for contrast in self.contrasts)

    @property
    def sign(self) -> int:
        """1 if a larger value is better, else -1."""
        return -1 if is_lower_better(self.metric) else 1

    def scores_of(self, metric: str) -> Scores:
        """Return another metric of the same runs, without resampled images."""
        scores = self.scores
        return Scores(scores.labels, scores.seeds, score_table(self.runs, scores.seeds, self.split, metric))

    def arm_interval(self, arm: int) -> tuple[float, float, float]:
        """Return the mean of an arm and its two-level bootstrap interval."""
        values, low, high = self.scores.estimate(np.eye(len(self.arms))[[arm]])
        return float(values.mean()) if len(values) else math.nan, low, high

    def ranks(self) -> dict[int, tuple[int, int]]:
        """Return the interval of every main arm's rank, 1 the best; empty with too few seeds."""
        complete = self.scores.complete_seeds(np.array(self.main, int))
        seeds = int(complete.sum())
        if not self.family or seeds < statistics.MIN_SEEDS:
            return {}
        complete_scores = replace(self.scores, values=np.where(complete, self.scores.values, math.nan))
        replicates = np.stack([complete_scores.replicates(unit[None]) for unit in np.eye(len(self.arms))[self.main]])
        means = self.scores.values[self.main][:, complete].mean(1)
        intervals = statistics.rank_intervals(self.sign * means, self.sign * replicates, seeds)
        return dict(zip(self.main, intervals, strict=True))


def analyze(folder: Path, metric: str = "miou", reference: str | None = None, tune: str | None = None) -> SweepAnalysis:
    """Read and compare the runs of a sweep.

    Args:
        folder: the sweep's, with one folder per run.
        metric: the compared key of ``metrics.json`` without its split, such as ``miou`` or ``boundary/iou``.
        reference: label of the arm that all others are compared with; None compares every pair.
        tune: a swept key, such as ``optim.lr``; every arm is compared at its best validated value of it.

    Raises:
        UserError: there are no runs, no such metric, no such arm, or nothing to tune.
    """
    sweep = read_sweep(folder)
    split = evaluated_split(sweep.runs)
    keys, dependent_keys = find_factors(sweep.runs)
    tuning_notes: list[str] = []
    if tune is not None:
        sweep, keys, tuning_notes = select_best_values(sweep, keys, tune)
    arms = group_runs(sweep.runs, keys)
    done = [run for run in sweep.runs if run.state == "done"]
    if done and not any(metric_key(metric, split) in run.metrics for run in done):
        names = sorted({key.removeprefix(f"{split}/") for run in done for key in run.metrics})
        raise UserError(
            f"{folder}: no run has {metric_key(metric, split)} in its metrics.json{did_you_mean(metric, names)}; "
            f"expected the key of a number in metrics.json without its split, such as metric=miou"
        )
    compared, missing_runs, warnings = collect_runs(sweep, arms, split, metric)
    seeds = sort_replicates({replicate for runs in compared for replicate in runs})
    values = score_table(compared, seeds, split, metric)
    resampled, images, image_warnings = resample_images(compared, seeds, values, metric)
    labels = [arm.label for arm in arms]
    scores = Scores(labels, seeds, values, resampled, images)
    if reference is not None and reference not in labels:
        raise UserError(
            f"{folder}: no arm is called {reference!r}{did_you_mean(reference, labels)}; expected one of "
            f"{', '.join(labels)}"
        )
    reference_index = None if reference is None else labels.index(reference)
    pairs, repeats = all_pairs(scores, arms, reference_index, -1 if is_lower_better(metric) else 1)
    usual_label = usual_repeat_label([arm.values for arm in arms for _ in arm.runs])
    usual = [index for index, arm in enumerate(arms) if arm.values.get(REPEAT, "") == usual_label]
    crossed = [key for key in keys if key != REPEAT]
    crossed_arms = {index: arms[index].values for index in usual}
    return SweepAnalysis(
        sweep=sweep,
        metric=metric,
        split=split,
        factors=keys,
        dependent_keys=dependent_keys,
        arms=arms,
        main=[index for index in usual if compared[index]],
        runs=compared,
        scores=scores,
        images=images,
        reference=reference_index,
        pairs=pairs,
        repeats=repeats,
        effects=estimate_effects(scores, crossed, crossed_arms) if len(crossed) == 2 else None,
        missing_runs=missing_runs,
        warnings=warnings + image_warnings + provenance_warnings(done),
        tuning_notes=tuning_notes,
    )


def all_pairs(scores: Scores, arms: Sequence[Arm], reference: int | None, sign: int) -> tuple[Pairs, Pairs]:
    """Compare every pair of arms (better arm first) or every arm with the reference, and each arm with its repeats.

    An arm and a repeat of another arm are not compared: their settings and seeds differ.
    """
    pairs: Pairs = []
    repeats: Pairs = []
    for a, b in itertools.combinations(range(len(arms)), 2):
        differing_keys = arms[a].differs_from(arms[b])
        if differing_keys == {REPEAT}:
            repeats.append((a, b, compare_repeats(scores, a, b)))
        elif REPEAT not in differing_keys and reference in (None, a, b):
            contrast = compare_pair(scores, a, b)
            swap = contrast.difference * sign < 0 if reference is None else reference == a
            pairs.append((b, a, compare_pair(scores, b, a)) if swap else (a, b, contrast))
    corrected = correct_family([contrast for *_, contrast in pairs])
    return [(a, b, contrast) for (a, b, _), contrast in zip(pairs, corrected, strict=True)], repeats


def score_table(runs: Sequence[Mapping[Replicate, Run]], seeds: Sequence[Replicate], split: str, metric: str) -> Array:
    """Return the metric of every arm and seed (A, S); nan if it is missing or not finite."""
    values = [[metric_value(row[s].metrics, split, metric) if s in row else math.nan for s in seeds] for row in runs]
    table = np.array(values, float).reshape(len(runs), len(seeds))
    return np.where(np.isfinite(table), table, math.nan)


def collect_runs(
    sweep: Sweep, arms: Sequence[Arm], split: str, metric: str
) -> tuple[list[dict[Replicate, Run]], list[MissingRun], list[str]]:
    """Return the finished runs of each arm by seed, the excluded runs with their reasons, and warnings."""
    compared: list[dict[Replicate, Run]] = []
    missing_runs: list[MissingRun] = []
    warnings: list[str] = []
    grouped: set[Path] = set()
    for arm in arms:
        runs: dict[Replicate, Run] = {}
        for run in arm.runs:
            grouped.add(run.folder)
            state, reason = run_problem(run, split, metric)
            if reason:
                missing_runs.append(MissingRun(run.name, arm.label, run.replicate, state, reason, run.command))
            elif (replicate := run.replicate) in runs:
                name = format_replicate(replicate)
                name = name if isinstance(replicate, tuple) else f"seed {name}"
                warnings.append(
                    f"{runs[replicate].name} and {run.name} are both {name} of {arm.label}; the first is used."
                )
            elif replicate is not None:
                runs[replicate] = run
        compared.append(runs)
    ungrouped = [run for run in sweep.runs if run.folder not in grouped]
    missing_runs += [MissingRun(r.name, "", r.replicate, r.state, r.reason, r.command) for r in ungrouped]
    reason = "other arms have a run of this seed, this arm has none"
    missing_runs += [
        MissingRun("", arm.label, seed, "missing", reason, "") for arm, seed in replicates_without_run(arms)
    ]
    return compared, missing_runs, warnings


def run_problem(run: Run, split: str, metric: str) -> tuple[str, str]:
    """Return state and reason of a run that cannot be compared; an empty reason for one that can."""
    if run.state != "done":
        reasons = {"pending": "not started yet", "running": "still running, or killed"}
        return run.state, run.reason or reasons.get(run.state, "no reason was recorded")
    if run.seed is None:
        return "unreadable", "its config and its metrics have no seed"
    key = metric_key(metric, split)
    if key not in run.metrics:
        return "not measured", f"finished, but without {key} in its metrics.json; excluded from all statistics"
    if not math.isfinite(metric_value(run.metrics, split, metric)):
        return "diverged", f"finished, but its {key} is {run.metrics[key]}; excluded from all statistics"
    return run.state, ""
