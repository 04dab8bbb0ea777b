"""Compute the statistics of a comparison. Arrays are indexed (comparison C, seed S) or (arm A, seed S)."""

import itertools
import math
from functools import lru_cache

import numpy as np
from scipy import stats

Array = np.ndarray

ALPHA = 0.05
LEVEL = 1 - ALPHA
"""Probability with which all intervals of a family contain their true values."""
MIN_SEEDS = 6
"""Smallest number of seeds with which anything is decided: five have only 16 sign patterns, more than 1 in 20 each."""
RECOMMENDED_SEEDS = 12
EXACT_UP_TO = 16
"""Seeds up to which all 2^n sign patterns are enumerated; beyond, a random sample is used."""
SAMPLED = 20_000
"""Size of that sample."""


@lru_cache(32)
def sign_patterns(n: int) -> Array:
    """Return signs (P, n), all ones first: every pattern up to a flip of all; a sample for many seeds."""
    if n > EXACT_UP_TO:
        return np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (SAMPLED, n))])
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=n - 1))).reshape(2 ** (n - 1), n - 1)
    return np.hstack([np.ones((len(signs), 1)), signs])


def critical_value(differences: Array, alpha: float = ALPHA) -> float:
    """Return the factor of the standard errors that makes all intervals of C comparisons hold together.

    The deviations of ``differences`` (C, S) from their means get the sign of every pattern, a seed's sign in all
    comparisons at once, so that their correlation is kept. The factor is the ``1 - level`` quantile of the largest
    absolute t statistic (Romano & Wolf 2005, https://doi.org/10.1198/016214504000000539), with the level of
    :func:`pattern_level`. nan marks a missing seed.

    Returns infinity if the level is below the share of one pattern.
    """
    known = np.isfinite(differences)
    counts = known.sum(1)
    deviations = np.where(known, differences - np.nanmean(differences, 1, keepdims=True), 0.0)
    patterns = sign_patterns(differences.shape[1])
    level = pattern_level(alpha, differences.shape[1])
    if level * len(patterns) < 1:
        return math.inf
    squares = (deviations**2).sum(1) / counts
    varying = squares > 0
    if not varying.any():
        return 0.0
    means = patterns @ deviations[varying].T / counts[varying]
    variances = np.maximum(squares[varying] - means**2, 1e-12 * squares[varying]) / (counts[varying] - 1)
    largest = (np.abs(means) / np.sqrt(variances)).max(1)
    return float(np.quantile(largest, 1 - level, method="higher"))


def pattern_level(alpha: float, seeds: int) -> float:
    """Return the share of sign patterns that exceed the critical value.

    Deviations from an estimated mean are too small: without the factor, 7 or 8 seeds have 6 % false verdicts
    (scripts/maintain/simulate_report.py).
    """
    return alpha * (seeds - 1) / seeds


def standard_errors(differences: Array) -> Array:
    """Return the standard error of each mean of ``differences`` (C, S); nan with fewer than two seeds."""
    counts = np.isfinite(differences).sum(1)
    errors = np.full(len(differences), math.nan)
    for row in np.flatnonzero(counts > 1):
        errors[row] = np.nanstd(differences[row], ddof=1) / math.sqrt(counts[row])
    return errors


def image_error(influences: Array) -> tuple[float, float]:
    """Return the standard error of a score that comes from its images, and its degrees of freedom.

    ``influences`` (N,) are the changes of the score when each unit (an image, or a group of dependent ones) is left
    out: this is the jackknife. The degrees of freedom are Satterthwaite's (1946, https://doi.org/10.2307/3002019) for a
    sum of squares: of a hundred images of which nine hold the class that decides, about nine count.
    """
    n = len(influences)
    squares = (influences - influences.mean()) ** 2
    if n < 2 or not squares.any():
        return 0.0, math.inf
    effective = 3 * squares.sum() ** 2 / (squares**2).sum()  # 3: the fourth moment of a normal value
    return math.sqrt((n - 1) / n * squares.sum()), float(np.clip(effective - 1, 1, n - 1))


def student_interval(values: Array) -> tuple[float, float]:
    """Return Student's interval of the mean of ``values`` (n,); nan for fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def proportion_interval(count: int, n: int) -> tuple[float, float]:
    """Return the interval of Clopper & Pearson (1934) for a share of ``count`` in ``n``."""
    low = float(stats.beta.ppf(ALPHA / 2, count, n - count + 1)) if count > 0 else 0.0
    high = float(stats.beta.ppf(1 - ALPHA / 2, count + 1, n - count)) if count < n else 1.0
    return low, high


def interaction_test(table: Array) -> tuple[Array, float]:
    """Return the deviations (I, J) from the sum of two factors' effects, and p of no interaction.

    ``table`` is (I, J, S), one two-way table per seed. Without interaction a seed's residual table could as well have
    the opposite sign: p is the share of sign patterns whose mean table has at least the observed sum of squares.
    """
    residuals = table - table.mean(0, keepdims=True) - table.mean(1, keepdims=True) + table.mean((0, 1), keepdims=True)
    n = table.shape[2]
    squares = ((sign_patterns(n) @ residuals.reshape(-1, n).T) ** 2).sum(1)
    return residuals.mean(2), float((squares >= squares[0] * (1 - 1e-9)).mean())


def welch_interval(a: Array, b: Array) -> tuple[float, float]:
    """Return Welch's interval of the difference of the means of two groups that share no seed."""
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    if np.ptp(a) == np.ptp(b) == 0:
        return float(a.mean() - b.mean()), float(a.mean() - b.mean())
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return float(low), float(high)
