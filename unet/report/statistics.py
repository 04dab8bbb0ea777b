"""Compute the statistics of a comparison. Arrays are indexed (arm A, seed S, replicate R)."""

import itertools
import math
from functools import lru_cache

import numpy as np
from scipy import stats

Array = np.ndarray

LEVEL = 0.95
"""Coverage of every interval; one minus it is the level of every test."""
ALPHA = 1 - LEVEL
POWER = 0.8
REPLICATES = 2000
EXACT_UP_TO = 16
"""Seeds up to which all 2^n sign patterns are enumerated; beyond, a random sample is used."""
SAMPLED = 20_000
"""Size of that sample."""
FLIPPED_UP_TO = 12
"""Seeds up to which a simulated comparison must also pass the sign-flip test on its own."""


def sign_flip_p(differences: Array) -> float:
    """Return the two-sided p value of the paired permutation test for a mean of zero (Fisher 1935, §21).

    If the arms do not differ, each of the n paired ``differences`` (n,) could as well have had the other sign: p is the
    share of the 2^n sign patterns whose mean is at least as far from zero as the observed one. Exact up to 16
    differences; beyond, a random sample of patterns and the observed one (Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585).
    """
    return step_down_p(differences[None])[0] if len(differences) else 1.0


@lru_cache(32)
def sign_patterns(n: int) -> Array:
    """Return signs (P, n), all ones first: every pattern up to a flip of all; a sample for many seeds."""
    if n > EXACT_UP_TO:
        return np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (SAMPLED, n))])
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=n - 1))).reshape(2 ** (n - 1), n - 1)
    return np.hstack([np.ones((len(signs), 1)), signs])


def flipped_means(differences: Array, scales: Array | float = 1.0) -> Array:
    """Return the absolute scaled means of C comparisons under every sign pattern (P, C).

    ``differences`` (C, S) is nan if a comparison lacks a seed. A seed's sign is flipped in all comparisons at once.
    """
    counts = np.isfinite(differences).sum(1)
    return np.abs(sign_patterns(differences.shape[1]) @ np.nan_to_num(differences).T) / (counts * scales)


def step_down_p(differences: Array, scales: Array | float = 1.0) -> list[float]:
    """Return step-down p values of C comparisons (C, S) by their maximum (Westfall & Young 1993; Romano & Wolf 2005,
    https://doi.org/10.1198/016214504000000539).

    Each absolute mean is compared with the maximum over itself and all smaller ones under the same sign patterns; p
    values are monotone in the means. The patterns preserve the correlation of the comparisons, so n seeds that decide
    one comparison can decide a hundred. Assumption: a seed's deviations are as likely with all signs reversed.
    """
    sizes = flipped_means(differences, scales)
    order = np.argsort(sizes[0])
    largest = np.maximum.accumulate(sizes[:, order], axis=1)
    p = (largest >= sizes[0, order] * (1 - 1e-9)).mean(0)  # rounding must not exclude the observed pattern
    p_adjusted = np.empty(len(order))
    p_adjusted[order] = np.maximum.accumulate(p[::-1])[::-1]
    return [float(value) for value in p_adjusted]


def critical_difference(differences: Array) -> float:
    """Return the mean beyond which one more comparison besides these (C, S) is claimed; infinite with too few seeds."""
    largest = np.sort(flipped_means(differences).max(1))
    allowed = int(ALPHA * len(largest))
    return float(largest[-allowed]) if allowed else math.inf


def smallest_possible_p(n: int) -> float:
    """Return the smallest two-sided p value of ``n`` signs: 2 of 2^n patterns."""
    return min(1.0, 2.0 ** (1 - n))


MIN_SEEDS = next(n for n in itertools.count(1) if smallest_possible_p(n) <= ALPHA)
"""Smallest number of seeds with which any difference can be claimed."""


def superiority(differences: Array) -> tuple[float, float, float]:
    """Return P(A > B), the share of seeds at which A is ahead (ties half), with its Clopper-Pearson interval.

    Proposed for comparing learning algorithms by Bouthillier et al. 2021 (https://arxiv.org/abs/2103.03098).
    """
    n, ahead = len(differences), (differences > 0).sum() + (differences == 0).sum() / 2
    if n == 0:
        return math.nan, 0.0, 1.0
    low = stats.beta.ppf(ALPHA / 2, ahead, n - ahead + 1) if ahead > 0 else 0.0
    high = stats.beta.ppf(1 - ALPHA / 2, ahead + 1, n - ahead) if ahead < n else 1.0
    return float(ahead / n), float(low), float(high)


@lru_cache(32)
def seed_shares(n: int, replicates: int = REPLICATES) -> Array:
    """Return the share of each seed in every bootstrap replicate (R, n).

    n - 1 seeds are drawn with replacement, not n: with n the variance of a mean comes out too small by the factor
    (n - 1) / n, which matters at five seeds (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789, sec. 3.3).
    """
    draws = max(1, n - 1)
    return np.random.default_rng(1).multinomial(draws, np.full(n, 1 / n), replicates) / draws


def image_counts(n: int, replicates: int = REPLICATES) -> Array:
    """Return how often each image is drawn in every replicate (R, n), the same for every run."""
    return np.random.default_rng(2).multinomial(n, np.full(n, 1 / n), replicates)


def confidence_interval(differences: Array, replicates: Array, images: int = 0) -> tuple[float, float]:
    """Return the interval of the mean of ``differences`` (n,): mean ± Student's t times the replicates' deviation.

    A 95 % percentile interval of five seeds covers only about 85 %. The degrees of freedom are Satterthwaite's (1946,
    https://doi.org/10.2307/3002019) of two variances: that of the seeds has n - 1, that of the ``images`` has
    ``images`` - 1. Without images this is Student's interval; it is nan for one seed.
    """
    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    mean, by_seed, total = float(differences.mean()), float(differences.var(ddof=1)) / n, float(replicates.var())
    by_image = max(0.0, total - by_seed) if images > 1 else 0.0
    variance = by_seed + by_image
    if variance == 0:
        return mean, mean
    freedom = variance**2 / (by_seed**2 / (n - 1) + by_image**2 / max(1, images - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    return mean - half, mean + half


def rank_intervals(means: Array, replicates: Array, seeds: int) -> list[tuple[int, int]]:
    """Return the interval of each arm's rank, 1 the largest: percentiles over replicates (A, R) around ``means`` (A,).

    The replicates are widened by t / z, as the intervals of differences are.
    """
    wider = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) / stats.norm.ppf((1 + LEVEL) / 2)
    spread = means[:, None] + wider * (replicates - replicates.mean(1, keepdims=True))
    ranks = 1 + (spread[None] > spread[:, None]).sum(1)
    low, high = np.percentile(ranks, [50 * ALPHA, 100 - 50 * ALPHA], axis=1, method="nearest")
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def interaction_test(table: Array) -> tuple[Array, float]:
    """Return the deviations (I, J) from the sum of two factors' effects, and p of no interaction.

    ``table`` is (I, J, S), one two-way table per seed. Without interaction a seed's residual table could as well have
    the opposite sign: p is the share of sign patterns whose mean table has at least the observed sum of squares.
    """
    residuals = table - table.mean(0, keepdims=True) - table.mean(1, keepdims=True) + table.mean((0, 1), keepdims=True)
    n = table.shape[2]
    squares = ((sign_patterns(n) @ residuals.reshape(-1, n).T) ** 2).sum(1)
    return residuals.mean(2), float((squares >= squares[0] * (1 - 1e-9)).mean())


def compare_unpaired(a: Array, b: Array) -> tuple[float, float, float, float]:
    """Return difference of means, Welch interval and permutation p value of two groups that share no seed."""
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return difference, math.nan, math.nan, 1.0
    if np.ptp(a) == np.ptp(b) == 0:
        low = high = difference
    else:
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    test = stats.permutation_test(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True, n_resamples=10_000, axis=-1, rng=0
    )
    return difference, float(low), float(high), float(test.pvalue)


def detectable_difference(differences: Array) -> float:
    """Return the smallest true difference that would be claimed besides these comparisons (C, S) with 80 % power.

    Simulated with normal deviations of the pooled standard deviation: the mean must pass the critical difference and
    the sign-flip test on its own. Nan if no comparison has two seeds. With too few seeds: of a normal test with
    Bonferroni's correction.
    """
    rows = [row[np.isfinite(row)] for row in differences]
    variances = [row.var(ddof=1) for row in rows if len(row) > 1]
    if not variances:
        return math.nan
    spread, seeds = math.sqrt(np.mean(variances)), int(np.median([len(row) for row in rows]))
    critical = critical_difference(differences)
    if math.isinf(critical):
        quantiles = float(stats.norm.isf(ALPHA / 2 / len(rows)) + stats.norm.ppf(POWER))
        return quantiles * spread / math.sqrt(seeds)
    noise = spread * np.random.default_rng(3).standard_normal((1000, seeds))
    patterns = sign_patterns(seeds) if seeds <= FLIPPED_UP_TO else np.ones((1, seeds))

    def powerful(difference: float) -> bool:
        means = np.abs((noise + difference) @ patterns.T) / seeds  # (R, P), the observed pattern first
        alone = (means >= means[:, :1] * (1 - 1e-9)).mean(1) <= ALPHA
        return bool(((means[:, 0] > critical) & (alone | (len(patterns) == 1))).mean() >= POWER)

    low, high = critical, critical + 10 * spread
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if powerful(middle) else (middle, high)
    return high
