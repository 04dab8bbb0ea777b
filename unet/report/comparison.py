"""Compute contrasts (weighted sums of arms, paired by seed) with interval and test: pairs, effects and claims."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import unet.report.statistics as statistics
from unet.report.metrics import mean_and_sd
from unet.report.read_sweep import Replicate
from unet.report.statistics import ALPHA

Array = np.ndarray


@dataclass(frozen=True)
class Scores:
    """One metric of every arm.

    Attributes:
        values: (A, S); nan if an arm has no finished run of a seed.
        resampled: (A, S, R), the values under R draws of the evaluated images; None if only seeds are resampled.
    """

    labels: list[str]
    seeds: list[Replicate]
    values: Array
    resampled: Array | None = None
    images: int = 0

    def complete_seeds(self, arms: Array) -> Array:
        """Return a mask (S,) of the seeds that all of these ``arms`` have."""
        return np.asarray(np.isfinite(self.values[arms]).all(0))

    def means(self) -> Array:
        """Return the mean over the seeds of every arm (A,); nan for one without any."""
        return np.array([mean_and_sd(row)[0] for row in self.values])

    def weighted_sums(self, weights: Array) -> tuple[Array, Array | None]:
        """Return the weighted sum of arms at every seed (S,), and resampled (S, R).

        ``weights`` (W, A) are several sums: each seed has their mean over those whose arms all have the seed, or nan.
        """
        known = np.stack([self.complete_seeds(np.flatnonzero(row)) for row in weights])  # (W, S)
        mean_weights = np.einsum("ws,wa->as", known / np.maximum(known.sum(0), 1), weights)
        values = np.einsum("as,as->s", mean_weights, np.nan_to_num(self.values))
        sums = np.where(known.any(0), values, math.nan)
        if self.resampled is None:
            return sums, None
        return sums, np.einsum("as,asr->sr", mean_weights, np.nan_to_num(self.resampled))

    def replicates(self, weights: Array) -> Array:
        """Return bootstrap replicates (R,) of the mean of a weighted sum (W, A), over seeds and then images."""
        sums, resampled = self.weighted_sums(weights)
        seeds = np.isfinite(sums)
        draws = statistics.seed_shares(int(seeds.sum()))  # (R, n)
        return draws @ sums[seeds] if resampled is None else np.einsum("rn,nr->r", draws, resampled[seeds])

    def estimate(self, weights: Array) -> tuple[Array, float, float]:
        """Return a weighted sum (W, A) at the seeds that have it (n,), and the interval of its mean."""
        sums, _ = self.weighted_sums(weights)
        sums = sums[np.isfinite(sums)]
        if len(sums) < 2:
            return sums, math.nan, math.nan
        return sums, *statistics.confidence_interval(sums, self.replicates(weights), self.images)


@dataclass(frozen=True)
class Contrast:
    """A difference with its interval and tests.

    Attributes:
        difference: the mean of ``differences``; nan without a common seed.
        low, high: the two-level bootstrap interval, not corrected for multiple comparisons.
        by_seed: (S,) differences; nan for a missing seed.
        p_adjusted: ``p`` of the sign-flip test with the step-down correction over the family.
        superiority: P(first > second) with its interval.
        is_resolvable: whether its seeds suffice to claim any difference.
        is_paired: False for two groups of different seeds.
    """

    name: str
    difference: float
    low: float
    high: float
    by_seed: Array
    p: float
    p_adjusted: float
    superiority: tuple[float, float, float]
    is_resolvable: bool = False
    is_paired: bool = True

    @property
    def differences(self) -> Array:
        """Return the differences (n,) at the seeds that have one."""
        return np.asarray(self.by_seed[np.isfinite(self.by_seed)])

    @property
    def seeds(self) -> int:
        return len(self.differences)

    @property
    def is_claimed(self) -> bool:
        """Return whether the corrected test and the interval both show a difference."""
        return self.p_adjusted <= ALPHA and (self.low > 0 or self.high < 0)

    @property
    def spread(self) -> float:
        """Return the standard deviation of the paired differences; nan with fewer than two."""
        return mean_and_sd(self.by_seed)[1]


def estimate_contrast(scores: Scores, weights: Array, name: str) -> Contrast:
    """Return the contrast of a weighted sum of arms, (A,) or several (W, A); p is not corrected yet."""
    weights = np.atleast_2d(weights)
    by_seed, _ = scores.weighted_sums(weights)
    differences, low, high = scores.estimate(weights)
    mean = float(differences.mean()) if len(differences) else math.nan
    p = statistics.sign_flip_p(differences)
    return Contrast(name, mean, low, high, by_seed, p, p, statistics.superiority(differences))


def correct_family(contrasts: Sequence[Contrast], metrics: Sequence[str] | None = None) -> list[Contrast]:
    """Return the contrasts with p corrected over all that have a common seed.

    ``metrics`` are the metrics of the contrasts if they differ: each is then divided by the root mean square of its
    differences, which does not depend on their signs.
    """
    tested = [index for index, contrast in enumerate(contrasts) if contrast.seeds]
    if not tested:
        return list(contrasts)
    names = np.array(["" if metrics is None else metrics[index] for index in tested])
    differences = np.stack([contrasts[index].by_seed for index in tested])
    squares = np.array([np.nanmean(differences[names == name] ** 2) for name in names])
    scales = np.where(squares > 0, np.sqrt(squares), 1.0)
    corrected = list(contrasts)
    for index, p_adjusted in zip(tested, statistics.step_down_p(differences, scales), strict=True):
        contrast = contrasts[index]
        is_resolvable = statistics.smallest_possible_p(contrast.seeds) <= ALPHA
        corrected[index] = replace(contrast, p_adjusted=p_adjusted, is_resolvable=is_resolvable)
    return corrected


def compare_pair(scores: Scores, first: int, second: int) -> Contrast:
    """Return the contrast of the first minus the second arm."""
    weights = np.zeros(len(scores.labels))
    weights[first], weights[second] = 1, -1
    return estimate_contrast(scores, weights, f"{scores.labels[first]} vs {scores.labels[second]}")


def compare_repeats(scores: Scores, first: int, second: int) -> Contrast:
    """Compare a configuration with its repeat: paired where the seeds are the same, else as two groups."""
    paired = compare_pair(scores, first, second)
    if paired.seeds:
        return paired
    a, b = (scores.values[arm][np.isfinite(scores.values[arm])] for arm in (first, second))
    if not len(a) or not len(b):
        return paired
    difference, low, high, p = statistics.compare_unpaired(a, b)
    return replace(paired, difference=difference, low=low, high=high, p=p, p_adjusted=p, is_paired=False)


@dataclass(frozen=True)
class Effects:
    """Main effects and interaction of two factors.

    Attributes:
        factors: the two keys. ``levels``: their values.
        cells: (I, J) index of the arm of each combination; -1 without one.
        main: for each factor the differences between its levels; both factors are one family.
        deviations: (I, J) from the sum of both effects.
        p: p value of no interaction. ``seeds``: the number of seeds that all cells have.
    """

    factors: tuple[str, str]
    levels: tuple[list[str], list[str]]
    cells: Array
    main: tuple[list[Contrast], list[Contrast]] = ([], [])
    deviations: Array | None = None
    p: float = 1.0
    seeds: int = 0


def estimate_effects(scores: Scores, keys: Sequence[str], arms: Mapping[int, Mapping[str, str]]) -> Effects:
    """Return main effects and interaction of two factors; ``arms`` are their settings by index.

    They are empty if a cell is missing or no seed is in all cells.
    """
    first, second = keys
    rows, columns = (list(dict.fromkeys(values[key] for values in arms.values())) for key in keys)
    cells = np.full((len(rows), len(columns)), -1)
    for index, values in arms.items():
        cells[rows.index(values[first]), columns.index(values[second])] = index
    effects = Effects((first, second), (rows, columns), cells)
    if (cells < 0).any() or not (complete := scores.complete_seeds(cells.flatten())).any():
        return effects
    balanced = replace(scores, values=np.where(complete, scores.values, math.nan))
    main: list[list[Contrast]] = []
    for levels, groups in ((rows, cells), (columns, cells.T)):
        main.append([])
        for low, high in itertools.combinations(range(len(levels)), 2):
            weights = np.zeros(len(scores.labels))
            weights[groups[high]], weights[groups[low]] = 1 / groups.shape[1], -1 / groups.shape[1]
            main[-1].append(estimate_contrast(balanced, weights, f"{levels[high]} vs {levels[low]}"))
    corrected = correct_family([*main[0], *main[1]])
    deviations, p = statistics.interaction_test(scores.values[cells][:, :, complete])
    by_factor = corrected[: len(main[0])], corrected[len(main[0]) :]
    return replace(effects, main=by_factor, deviations=deviations, p=p, seeds=int(complete.sum()))
