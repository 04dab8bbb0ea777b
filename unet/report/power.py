"""Compute what a sweep can show: the power of its intervals, and the seeds that a difference takes."""

import math
from functools import lru_cache

import numpy as np
from scipy import stats

from unet.report.statistics import ALPHA, EXACT_UP_TO, MIN_SEEDS, pattern_level

Array = np.ndarray

POWER = 0.8
SIMULATED = 2_000_000
"""Simulated differences; 500 to 4000 families of comparisons."""
MAX_SEEDS = 1000


def expected_critical_value(correlation: Array, seeds: int, alpha: float = ALPHA) -> float:
    """Return the critical value of :func:`statistics.critical_value` to expect with ``seeds``.

    It is simulated with normal differences of a ``correlation`` (C, C) between the comparisons.
    """
    return simulated_quantile(tuple(map(tuple, correlation.round(3))), seeds, round(alpha, 6))


@lru_cache(256)
def simulated_quantile(correlation: tuple[tuple[float, ...], ...], seeds: int, alpha: float) -> float:
    """Return the ``1 - alpha`` quantile of the largest absolute t statistic of a family; infinite with few seeds."""
    patterns = 2 ** (min(seeds, EXACT_UP_TO) - 1)
    level = math.floor(pattern_level(alpha, seeds) * patterns) / patterns  # few sign patterns have no finer levels
    if level == 0:
        return math.inf
    values, vectors = np.linalg.eigh(np.array(correlation))
    root = vectors * np.sqrt(np.maximum(values, 0))
    families = min(4000, max(500, SIMULATED // root[0].size // seeds))
    noise = np.random.default_rng(0).standard_normal((families, seeds, len(root))) @ root.T
    largest = np.abs(noise.mean(1) / noise.std(1, ddof=1)).max(1) * math.sqrt(seeds)
    return float(np.quantile(largest, 1 - level))


def correlations(differences: Array) -> Array:
    """Return the correlation (C, C) of comparisons over the seeds that they share; 0 where it is not defined."""
    masked = np.ma.corrcoef(np.ma.masked_invalid(differences), allow_masked=True)
    matrix = np.nan_to_num(np.ma.filled(np.atleast_2d(masked), 0.0))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def power_to_differ(difference: float, spreads: Array, seeds: int, critical: float) -> float:
    """Return the probability that an interval excludes zero at a true ``difference``, averaged over comparisons.

    ``spreads`` (C,) are the standard deviations of the paired differences.
    """
    shift, half_widths = difference * math.sqrt(seeds) / spreads[:, None], critical * estimated_spreads(seeds)
    return float(np.mean(stats.norm.sf(half_widths - shift) + stats.norm.cdf(-half_widths - shift)))


def power_to_equal(margin: float, spreads: Array, seeds: int, critical: float) -> float:
    """Return the probability that an interval lies inside the margin where arms are equal, averaged."""
    room = margin * math.sqrt(seeds) / spreads[:, None] - critical * estimated_spreads(seeds)
    return float(np.mean(np.maximum(0, 2 * stats.norm.cdf(room) - 1)))


def estimated_spreads(seeds: int) -> Array:
    """Return quantiles of the standard deviation that is estimated from ``seeds`` normal values of deviation 1."""
    return np.sqrt(stats.chi2.ppf((np.arange(100) + 0.5) / 100, seeds - 1) / (seeds - 1))


def family_spreads(differences: Array) -> Array:
    """Return the standard deviations (C,) of the comparisons that vary."""
    spreads = np.array([np.nanstd(row, ddof=1) for row in differences if np.isfinite(row).sum() > 1])
    return spreads[spreads > 0]


def detectable_difference(differences: Array, alpha: float = ALPHA, family: Array | None = None) -> float:
    """Return the true difference that these comparisons (C, S) would show with 80 % power, nan if none varies.

    ``family`` are all comparisons whose intervals hold together with theirs; None: these alone.
    """
    spreads = family_spreads(differences)
    if not len(spreads):
        return math.nan
    seeds = int(np.median(np.isfinite(differences).sum(1)))
    critical = expected_critical_value(correlations(differences if family is None else family), seeds, alpha)
    if math.isinf(critical):
        return math.inf
    low, high = 0.0, 20 * critical * float(spreads.max()) / math.sqrt(seeds)
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        shown = power_to_differ(middle, spreads, seeds, critical) >= POWER
        low, high = (low, middle) if shown else (middle, high)
    return high


def seeds_needed(differences: Array, margin: float, family: Array | None = None) -> int | None:
    """Return the seeds with which a difference of ``margin`` is shown, and none called equal, with 80 % power each.

    None if that takes more than 1000 seeds.
    """
    spreads, matrix = family_spreads(differences), correlations(differences if family is None else family)

    def enough(seeds: int) -> bool:
        critical = expected_critical_value(matrix, seeds)
        powers = power_to_differ(margin, spreads, seeds, critical), power_to_equal(margin, spreads, seeds, critical)
        return min(powers) >= POWER

    if not len(spreads):
        return MIN_SEEDS
    low, high = MIN_SEEDS, MIN_SEEDS
    while not enough(high):
        low, high = high + 1, high * 2
        if low > MAX_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
