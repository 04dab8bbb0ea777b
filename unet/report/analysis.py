"""Read a sweep and compare its arms."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unet.errors import UserError, did_you_mean
from unet.report.arms import (
    REPEAT,
    Arm,
    find_factors,
    format_replicate,
    format_value,
    group_runs,
    replicate_unit,
    replicates_without_run,
    sort_replicates,
    usual_repeat_label,
)
from unet.report.comparison import (
    BETTER,
    EQUAL,
    NO_VERDICT,
    WORSE,
    Contrast,
    Scores,
    TwoFactors,
    compare_pair,
    compare_repeats,
    tabulate_factors,
    with_joint_intervals,
)
from unet.report.image_influences import image_influences
from unet.report.looks import Look, plan_look
from unet.report.metrics import (
    evaluated_split,
    is_lower_better,
    is_segmentation_score,
    is_unordered,
    metric_key,
    metric_title,
    metric_value,
)
from unet.report.provenance import provenance_warnings
from unet.report.questions import Question, answer_questions
from unet.report.read_sweep import Replicate, Run, Sweep, read_sweep
from unet.report.training_warnings import training_warnings
from unet.report.tuning import select_best_values, validation_scores
from unet.report.untrained import Untrained, find_untrained

Array = np.ndarray

Pairs = list[tuple[int, int, Contrast]]

DEFAULT_MARGIN = 0.01
"""One point of mIoU, or of another score of a segmentation."""


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
        margin: the difference below which two arms are practically equal.
        factors: the keys that vary. ``dependent_keys``: keys that change with one of them.
        main: the indices of arms that have runs and are no repeats.
        finished: for each arm its finished runs by seed, or by fold and seed.
        runs: those of ``finished`` that are compared. ``untrained``: those that did not train; most are excluded.
        units: the number of independent evaluated units (images, clips, volumes), where it is known.
        questions: the named questions, or all differences between levels of a factor; one family of comparisons.
        look: which part of the planned seeds is reported, and the error rate of ``questions``.
        pairs: the pairs of arms, each as (first, second, contrast of first - second); exploratory.
        repeats: the pairs of equal arms.
        table: exactly two factors as a table, else None.
        warnings: doubts about the comparison. ``tuning_notes``: the selected value of every arm.
    """

    sweep: Sweep
    metric: str
    split: str
    margin: float
    factors: list[str]
    dependent_keys: dict[str, str]
    arms: list[Arm]
    main: list[int]
    finished: list[dict[Replicate, Run]]
    runs: list[dict[Replicate, Run]]
    untrained: list[Untrained]
    scores: Scores
    units: int
    questions: list[Question]
    look: Look
    pairs: Pairs
    repeats: Pairs
    table: TwoFactors | None
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
    def can_decide(self) -> bool:
        """Return whether there are enough seeds to decide any question."""
        return any(question.contrast.is_resolvable for question in self.questions)

    @property
    def sign(self) -> int:
        """1 if a larger value is better, else -1."""
        return -1 if is_lower_better(self.metric) else 1

    @property
    def split_classes(self) -> list[str]:
        """The classes that many runs found and many did not: a mean over both kinds of runs is not compared."""
        if self.metric.startswith("iou/"):
            return []
        split = [run for run in self.untrained if not run.is_excluded and not run.is_typical]
        return list(dict.fromkeys(str(run.missed_class) for run in split))

    def verdict(self, question: Question) -> str:
        """Return what the runs say of the question's first level compared with its second."""
        if self.split_classes:
            return NO_VERDICT
        return question.contrast.verdict(self.margin, self.sign)

    def is_decided(self, question: Question) -> bool:
        return self.verdict(question) in (BETTER, WORSE, EQUAL)

    def scores_of(self, metric: str) -> Scores:
        """Return another metric of the same runs, without the influence of images."""
        scores = self.scores
        return Scores(scores.labels, scores.seeds, score_table(self.runs, scores.seeds, self.split, metric))


def analyze(folder: Path, metric: str = "miou", tune: str | None = None, margin: float | None = None) -> SweepAnalysis:
    """Read and compare the runs of a sweep.

    Args:
        folder: the sweep's, with one folder per run.
        metric: the compared key of ``metrics.json`` without its split, such as ``miou`` or ``boundary/iou``.
        tune: a swept key, such as ``optim.lr``; every arm is compared at its best validated value of it.
        margin: the difference, in the metric's unit, below which two arms are practically equal. None: 0.01 of metrics
            like mIoU; other metrics have no usual margin.

    Raises:
        UserError: there are no runs, no such metric, nothing to tune, or the margin is missing or not positive.
    """
    if margin is not None and (not isinstance(margin, int | float) or not margin > 0):
        raise UserError(f"margin={margin}: expected a positive number, such as 0.01")
    if is_unordered(metric):
        raise UserError(
            f"metric={metric}: neither lower nor higher is better; expected a metric such as calibration/ece"
        )
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
    if margin is None and not is_segmentation_score(metric):
        raise UserError(
            f"metric={metric}: no usual margin, as it is unlike mIoU; set the difference below which two arms are "
            f"practically equal, such as margin=0.001"
        )
    finished, missing_runs, warnings = collect_runs(sweep, arms, split, metric)
    untrained = find_untrained(finished, split)
    excluded = {(run.arm, run.replicate) for run in untrained if run.is_excluded}
    trained = [
        {replicate: run for replicate, run in runs.items() if (arm, replicate) not in excluded}
        for arm, runs in enumerate(finished)
    ]
    seeds = sort_replicates({replicate for runs in finished for replicate in runs})
    values = score_table(trained, seeds, split, metric)
    influences, units, image_warnings = image_influences(trained, seeds, values, metric)
    scores = Scores([arm.label for arm in arms], seeds, values, influences)
    usual_label = usual_repeat_label([arm.values for arm in arms for _ in arm.runs])
    usual = [index for index, arm in enumerate(arms) if arm.values.get(REPEAT, "") == usual_label]
    planned = max((len({run.replicate for run in arms[index].runs}) for index in usual), default=0)
    look = plan_look(folder, max((len(finished[index]) for index in usual), default=0), planned)
    sign = -1 if is_lower_better(metric) else 1
    pairs, repeats = all_pairs(scores, arms, sign)
    crossed = [key for key in keys if key != REPEAT]
    named = {key: format_value(level) for key, level in sweep.questions.items()}
    return SweepAnalysis(
        sweep=sweep,
        metric=metric,
        split=split,
        margin=DEFAULT_MARGIN if margin is None else margin,
        factors=keys,
        dependent_keys=dependent_keys,
        arms=arms,
        main=[index for index in usual if finished[index]],
        finished=finished,
        runs=trained,
        untrained=untrained,
        scores=scores,
        units=units,
        questions=[] if sweep.is_search else answer_questions(scores, arms, keys, named, sign, look.alpha),
        look=look,
        pairs=pairs,
        repeats=repeats,
        table=tabulate_factors(scores, crossed, {i: arms[i].values for i in usual}) if len(crossed) == 2 else None,
        missing_runs=missing_runs,
        warnings=[
            *search_warnings(sweep),
            *([look.warning] if look.warning else []),
            *warnings,
            *image_warnings,
            *training_warnings([run for runs in trained for run in runs.values()], split),
            *provenance_warnings(done),
        ],
        tuning_notes=tuning_notes,
    )


def search_warnings(sweep: Sweep) -> list[str]:
    """Name the best run of a search, and say that a search is no comparison."""
    done = [run for run in sweep.runs if run.state == "done"]
    if not sweep.is_search or not done:
        return []
    scores = dict(zip([run.name for run in done], validation_scores(done), strict=True))
    best = max(scores, key=scores.__getitem__)
    stopped = sum("pruned" in run.metrics for run in done)
    early = f" ({stopped} stopped early)" if stopped else ""
    return [
        f"These {len(scores)} runs{early} are a search, which is no comparison: earlier results chose each of them. "
        f"The best on validation is {best} ({scores[best]:.4f}), in part by luck: compare it with others at new seeds."
    ]


def all_pairs(scores: Scores, arms: Sequence[Arm], sign: int) -> tuple[Pairs, Pairs]:
    """Compare every pair of arms, the better one first, and each arm with its repeats.

    An arm and a repeat of another arm are not compared: their settings and seeds differ.
    """
    pairs: Pairs = []
    repeats: Pairs = []
    for a, b in itertools.combinations(range(len(arms)), 2):
        differing_keys = arms[a].differs_from(arms[b])
        if differing_keys == {REPEAT}:
            repeats.append((a, b, compare_repeats(scores, a, b)))
        elif REPEAT not in differing_keys:
            contrast = compare_pair(scores, a, b)
            swap = contrast.difference * sign < 0
            pairs.append((b, a, compare_pair(scores, b, a)) if swap else (a, b, contrast))
    joint = with_joint_intervals([contrast for *_, contrast in pairs])
    return [(a, b, contrast) for (a, b, _), contrast in zip(pairs, joint, strict=True)], repeats


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
