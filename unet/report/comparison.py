"""Compute contrasts (weighted sums of arms, paired by seed) and intervals that hold together for a family of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

import unet.report.statistics as statistics
from unet.report.metrics import mean_and_sd
from unet.report.read_sweep import Replicate
from unet.report.statistics import ALPHA, MIN_SEEDS

Array = np.ndarray

BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "practically equal", "undecided"
TOO_FEW, NOT_RUN, NO_VERDICT = "too few seeds", "no seed in common", "no verdict"


@dataclass(frozen=True)
class Scores:
    """One metric of every arm.

    Attributes:
        values: (A, S); nan if an arm has no compared run of a seed.
        influences: (A, S, N), the change of a value if one of N units (images, or groups of dependent images) is left
            out; None if they are not known, or there is only one unit.
    """

    labels: list[str]
    seeds: list[Replicate]
    values: Array
    influences: Array | None = None

    def complete_seeds(self, arms: Array) -> Array:
        """Return a mask (S,) of the seeds that all of these ``arms`` have."""
        return np.asarray(np.isfinite(self.values[arms]).all(0))

    def means(self) -> Array:
        """Return the mean over the seeds of every arm (A,); nan for one without any."""
        return np.array([mean_and_sd(row)[0] for row in self.values])

    def weighted_sums(self, weights: Array) -> tuple[Array, Array | None]:
        """Return the weighted sum of arms at every seed (S,), and its mean influences (N,).

        ``weights`` (W, A) are several sums: each seed has their mean over those whose arms all have the seed, or nan.
        """
        known = np.stack([self.complete_seeds(np.flatnonzero(row)) for row in weights])  # (W, S)
        mean_weights = np.einsum("ws,wa->as", known / np.maximum(known.sum(0), 1), weights)
        values = np.einsum("as,as->s", mean_weights, np.nan_to_num(self.values))
        sums = np.where(known.any(0), values, math.nan)
        if self.influences is None or not known.any():
            return sums, None
        influences = np.einsum("as,asn->n", mean_weights, np.nan_to_num(self.influences)) / known.any(0).sum()
        return sums, influences


@dataclass(frozen=True)
class Contrast:
    """A difference with its interval.

    Attributes:
        difference: the mean of ``differences``; nan without a common seed.
        low, high: the interval over seeds. In a family of comparisons all intervals hold together.
        wide_low, wide_high: the same for other images than the evaluated ones; nan where that is not known.
        by_seed: (S,) differences; nan for a missing seed.
        image_error: the standard error over images with its degrees of freedom.
        is_paired: False for two groups of different seeds.
    """

    name: str
    difference: float
    low: float
    high: float
    by_seed: Array
    image_error: tuple[float, float] | None = None
    wide_low: float = math.nan
    wide_high: float = math.nan
    is_paired: bool = True

    @property
    def differences(self) -> Array:
        """Return the differences (n,) at the seeds that have one."""
        return np.asarray(self.by_seed[np.isfinite(self.by_seed)])

    @property
    def seeds(self) -> int:
        return len(self.differences)

    @property
    def is_resolvable(self) -> bool:
        """Return whether there are enough seeds to decide anything."""
        return self.is_paired and self.seeds >= MIN_SEEDS

    @property
    def differs(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.is_resolvable and (self.low > 0 or self.high < 0)

    @property
    def spread(self) -> float:
        """Return the standard deviation of the paired differences; nan with fewer than two."""
        return mean_and_sd(self.by_seed)[1]

    def verdict(self, margin: float, sign: int = 1) -> str:
        """Return what the interval says of the first arm; ``sign`` is -1 if lower values are better."""
        if not self.seeds:
            return NOT_RUN
        if not self.is_resolvable:
            return TOO_FEW
        if -margin < self.low and self.high < margin:
            return EQUAL
        if not self.differs:
            return UNDECIDED
        return BETTER if self.difference * sign > 0 else WORSE


def estimate_contrast(scores: Scores, weights: Array, name: str) -> Contrast:
    """Return the contrast of a weighted sum of arms, (A,) or several (W, A), with Student's interval of it alone."""
    by_seed, influences = scores.weighted_sums(np.atleast_2d(weights))
    differences = by_seed[np.isfinite(by_seed)]
    mean = float(differences.mean()) if len(differences) else math.nan
    error = None if influences is None else statistics.image_error(influences)
    return Contrast(name, mean, *statistics.student_interval(differences), by_seed, error)


def with_joint_intervals(contrasts: Sequence[Contrast], alpha: float = ALPHA) -> list[Contrast]:
    """Return a family of contrasts whose intervals hold together with the probability ``1 - alpha``.

    Contrasts with fewer than six seeds keep Student's interval and are no part of the family: nothing is claimed of
    them.
    """
    family = [index for index, contrast in enumerate(contrasts) if contrast.is_resolvable]
    if not family:
        return list(contrasts)
    differences = np.stack([contrasts[index].by_seed for index in family])
    half_widths = statistics.critical_value(differences, alpha) * statistics.standard_errors(differences)
    joint = list(contrasts)
    for index, half in zip(family, half_widths, strict=True):
        contrast = contrasts[index]
        low, high = contrast.difference - half, contrast.difference + half
        joint[index] = replace(contrast, low=low, high=high)
        if contrast.image_error is not None:
            error, freedom = contrast.image_error
            wide = math.hypot(half, float(stats.t.isf(alpha / 2 / len(family), freedom)) * error)
            joint[index] = replace(
                joint[index], wide_low=contrast.difference - wide, wide_high=contrast.difference + wide
            )
    return joint


def compare_pair(scores: Scores, first: int, second: int) -> Contrast:
    """Return the contrast of the first minus the second arm."""
    weights = np.zeros(len(scores.labels))
    weights[first], weights[second] = 1, -1
    return estimate_contrast(scores, weights, f"{scores.labels[first]} vs {scores.labels[second]}")


def compare_repeats(scores: Scores, first: int, second: int) -> Contrast:
    """Compare a configuration with its repeat: paired where the seeds are the same, else as two groups."""
    paired = compare_pair(scores, first, second)
    a, b = (scores.values[arm][np.isfinite(scores.values[arm])] for arm in (first, second))
    if paired.seeds or not len(a) or not len(b):
        return paired
    low, high = statistics.welch_interval(a, b)
    return replace(paired, difference=float(a.mean() - b.mean()), low=low, high=high, is_paired=False)


@dataclass(frozen=True)
class TwoFactors:
    """The arms of two factors as a table.

    Attributes:
        factors: the two keys. ``levels``: their values.
        cells: (I, J) index of the arm of each combination; -1 without one.
        deviations: (I, J) from the sum of both effects; None if a cell is missing or no seed is in all cells.
        p: p value of no interaction. ``seeds``: the number of seeds that all cells have.
    """

    factors: tuple[str, str]
    levels: tuple[list[str], list[str]]
    cells: Array
    deviations: Array | None = None
    p: float = 1.0
    seeds: int = 0


def tabulate_factors(scores: Scores, keys: Sequence[str], arms: Mapping[int, Mapping[str, str]]) -> TwoFactors:
    """Return the table of two factors with its interaction; ``arms`` are their settings by index."""
    first, second = keys
    rows, columns = (list(dict.fromkeys(values[key] for values in arms.values())) for key in keys)
    cells = np.full((len(rows), len(columns)), -1)
    for index, values in arms.items():
        cells[rows.index(values[first]), columns.index(values[second])] = index
    table = TwoFactors((first, second), (rows, columns), cells)
    if (cells < 0).any() or not (complete := scores.complete_seeds(cells.flatten())).any():
        return table
    deviations, p = statistics.interaction_test(scores.values[cells][:, :, complete])
    return replace(table, deviations=deviations, p=p, seeds=int(complete.sum()))
