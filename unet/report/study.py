"""A sweep, read and compared: everything that the pages say, before a word or a picture is made."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import unet.report.statistics as statistics
from unet.errors import UserError, did_you_mean
from unet.report.arms import REPEAT, Arm, arms_of, factors, missing_seeds, usual_mark
from unet.report.comparison import Contrast, Effects, Scores, effects, family, pair, repeat
from unet.report.images import resampled_images
from unet.report.measures import key_of, lower_is_better, measure, split_of
from unet.report.provenance import provenance_warnings
from unet.report.runs import Run, Sweep, read
from unet.report.tuning import tuned

Array = np.ndarray

UNSAID = {"pending": "not started yet", "running": "still running, or killed without a word"}
"""Reasons of states that leave none."""


@dataclass(frozen=True)
class Gap:
    """A run that is not in the statistics: which arm and seed, and why, and what would run it."""

    name: str
    arm: str
    seed: int | None
    state: str
    reason: str
    command: str


@dataclass(frozen=True)
class Study:
    """Attributes:
    sweep: what was read.
    metric, split: what is compared, such as ``miou`` of ``test``.
    factors, followers: what varied, and what moved with it.
    arms: the settings, in the sweep's order. ``main``: those that have runs and are no repeat
        of another.
    runs: per arm, its compared runs by seed.
    scores: the metric of every arm and seed.
    images: how many images were resampled; 0 where only seeds were.
    pairs: the compared pairs, each as (first, second, contrast of first - second); ``reference``: the arm that all
        are compared with, None for every pair with every other.
    repeats: the pairs of equal arms, outside the family.
    effects: of exactly two factors, else None.
    gaps: what is missing. ``warnings``: what makes runs hard to compare. ``choices``: what was tuned, arm by arm.
    """

    sweep: Sweep
    metric: str
    split: str
    factors: list[str]
    followers: dict[str, str]
    arms: list[Arm]
    main: list[int]
    runs: list[dict[int, Run]]
    scores: Scores
    images: int
    reference: int | None
    pairs: list[tuple[int, int, Contrast]]
    repeats: list[tuple[int, int, Contrast]]
    effects: Effects | None
    gaps: list[Gap]
    warnings: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)

    @property
    def contrasts(self) -> list[Contrast]:
        return [found for *_, found in self.pairs]

    @property
    def compared(self) -> list[Contrast]:
        """The contrasts that have a seed in common: a family."""
        return [found for found in self.contrasts if found.seeds]

    @property
    def decides(self) -> bool:
        """Are there seeds enough that some pair could be told apart?"""
        return any(found.resolvable for found in self.contrasts)

    @property
    def sign(self) -> int:
        """1 where a larger value is better, else -1."""
        return -1 if lower_is_better(self.metric) else 1

    def of(self, metric: str) -> Scores:
        """Another metric of the same runs, its seeds alone resampled."""
        values = np.full(self.scores.values.shape, math.nan)
        for arm, runs in enumerate(self.runs):
            for column, seed in enumerate(self.scores.seeds):
                if seed in runs:
                    values[arm, column] = measure(runs[seed].metrics, self.split, metric)
        values[~np.isfinite(values)] = math.nan
        return Scores(self.scores.labels, self.scores.seeds, values)

    def ranks(self) -> dict[int, tuple[int, int]]:
        """Interval of every main arm's rank, 1 the best; empty where the seeds cannot tell any two arms apart."""
        complete = self.scores.complete(np.array(self.main, int))
        seeds = int(complete.sum())
        if not self.compared or seeds < statistics.LEAST_SEEDS:
            return {}
        shared = replace(self.scores, values=np.where(complete, self.scores.values, math.nan))
        replicates = np.stack([shared.replicates(unit[None]) for unit in np.eye(len(self.arms))[self.main]])
        means = self.scores.values[self.main][:, complete].mean(1)
        found = statistics.rank_intervals(self.sign * means, self.sign * replicates, seeds)
        return dict(zip(self.main, found, strict=True))


def examine(folder: Path, metric: str = "miou", reference: str | None = None, tune: str | None = None) -> Study:
    """Read and compare the runs of ``folder`` by ``metric``, a key of ``metrics.json`` without its split.

    ``tune`` is a key that the sweep varied, such as ``optim.lr``: every arm is then compared at its own best value, as
    validation chooses it.

    Raises:
        UserError: no runs there, no run with this metric, no arm called ``reference``, nothing to ``tune``.
    """
    sweep = read(folder)
    split = split_of(sweep.runs)
    keys, followers = factors(sweep.runs)
    choices: list[str] = []
    if tune is not None:
        sweep, keys, choices = tuned(sweep, keys, tune)
    arms = arms_of(sweep.runs, keys)
    done = [run for run in sweep.runs if run.state == "done"]
    if done and not any(key_of(metric, split) in run.metrics for run in done):
        names = sorted({key.removeprefix(f"{split}/") for run in done for key in run.metrics})
        raise UserError(
            f"{folder}: no run has {key_of(metric, split)} in its metrics.json{did_you_mean(metric, names)}; expected "
            f"the name of a number there, without its split, such as miou"
        )
    compared, gaps, warnings = sorted_out(sweep, arms, split, metric)
    seeds = sorted({seed for runs in compared for seed in runs})
    values = np.array(
        [[measure(runs[s].metrics, split, metric) if s in runs else math.nan for s in seeds] for runs in compared]
    ).reshape(len(arms), len(seeds))
    resampled, images, doubts = resampled_images(compared, seeds, values, metric)
    scores = Scores([arm.label for arm in arms], seeds, values, resampled, images)
    chosen = index_of(reference, arms, folder)
    pairs, repeats = all_pairs(scores, arms, chosen, -1 if lower_is_better(metric) else 1)
    usual = usual_arms(arms)
    crossed = [key for key in keys if key != REPEAT]
    two = effects(scores, crossed, {index: arms[index].values for index in usual}) if len(crossed) == 2 else None
    main = [index for index in usual if compared[index]]
    return Study(
        sweep, metric, split, keys, followers, arms, main, compared, scores, images, chosen, pairs, repeats, two, gaps,
        warnings + doubts + provenance_warnings(done), choices,
    )  # fmt: skip


Pairs = list[tuple[int, int, Contrast]]


def all_pairs(scores: Scores, arms: Sequence[Arm], reference: int | None, sign: int) -> tuple[Pairs, Pairs]:
    """Every pair of arms, the better one first, or every arm with the reference; and the repeats of an arm.

    An arm and a repeat of another arm are no pair: they differ in their setting and have other seeds.
    """
    pairs: Pairs = []
    repeats: Pairs = []
    for a, b in itertools.combinations(range(len(arms)), 2):
        varied = arms[a].differs_from(arms[b])
        if varied == {REPEAT}:
            repeats.append((a, b, repeat(scores, a, b)))
        elif REPEAT not in varied and reference in (None, a, b):
            found = pair(scores, a, b)
            backwards = found.difference * sign < 0 if reference is None else reference == a
            pairs.append((b, a, pair(scores, b, a)) if backwards else (a, b, found))
    corrected = family([found for *_, found in pairs])
    return [(a, b, found) for (a, b, _), found in zip(pairs, corrected, strict=True)], repeats


def usual_arms(arms: Sequence[Arm]) -> list[int]:
    """The arms that are not marked as a repeat."""
    usual = usual_mark([arm.values for arm in arms for _ in arm.runs])
    return [index for index, arm in enumerate(arms) if arm.values.get(REPEAT, "") == usual]


def index_of(label: str | None, arms: Sequence[Arm], folder: Path) -> int | None:
    labels = [arm.label for arm in arms]
    if label is None:
        return None
    if label not in labels:
        raise UserError(
            f"{folder}: no arm is called {label!r}{did_you_mean(label, labels)}; expected one of {', '.join(labels)}"
        )
    return labels.index(label)


def sorted_out(
    sweep: Sweep, arms: Sequence[Arm], split: str, metric: str
) -> tuple[list[dict[int, Run]], list[Gap], list[str]]:
    """Per arm its finished runs by seed; what is left out, with the reason; warnings."""
    compared: list[dict[int, Run]] = []
    gaps: list[Gap] = []
    warnings: list[str] = []
    placed: set[Path] = set()
    for arm in arms:
        runs: dict[int, Run] = {}
        for run in arm.runs:
            placed.add(run.folder)
            state, reason = verdict(run, split, metric)
            if reason:
                gaps.append(Gap(run.name, arm.label, run.seed, state, reason, run.command))
            elif run.seed in runs:
                warnings.append(
                    f"{run.name} repeats seed {run.seed} of {arm.label}, which {runs[run.seed].name} has too: the "
                    f"first is used."
                )
            elif run.seed is not None:
                runs[run.seed] = run
        compared.append(runs)
    gaps += [Gap(r.name, "", r.seed, r.state, r.reason, r.command) for r in sweep.runs if r.folder not in placed]
    gaps += [
        Gap("", arm.label, seed, "missing", "other arms have a run of this seed, this one has none", "")
        for arm, seed in missing_seeds(arms)
    ]
    return compared, gaps, warnings


def verdict(run: Run, split: str, metric: str) -> tuple[str, str]:
    """State and reason of a run that cannot be compared; an empty reason for one that can."""
    if run.state != "done":
        return run.state, run.reason or UNSAID.get(run.state, "no reason was left")
    if run.seed is None:
        return "unreadable", "neither its config nor its metrics say which seed it had"
    key = key_of(metric, split)
    if key not in run.metrics:
        return "not measured", f"finished, but without {key} in its metrics.json; left out of all statistics"
    if not math.isfinite(measure(run.metrics, split, metric)):
        return "diverged", f"finished, but its {key} is {run.metrics[key]}; left out of all statistics"
    return run.state, ""
