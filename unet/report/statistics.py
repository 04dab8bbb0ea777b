"""The statistics of a comparison: numbers in, numbers out. Arrays are indexed (arm A, seed S, replicate R)."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

Array = np.ndarray

LEVEL = 0.95
"""Of every interval; one minus it is the level of every test."""
ALPHA = 1 - LEVEL
POWER = 0.8
REPLICATES = 2000
EXACT_UP_TO = 16
"""Differences whose 2^n signs are all enumerated; beyond, a random sample of them."""
SIMULATED_UP_TO = 12
"""Seeds up to which the power of the sign-flip test is simulated; beyond, it is the t test's to a few per cent."""


def sign_flip_p(differences: Array) -> float:
    """Two-sided p value of the paired permutation test for a mean of zero (Fisher 1935, Design of Experiments, §21).

    If the arms do not differ, each of the n paired ``differences`` (n,) could as well have had the other sign: p is the
    share of the 2^n sign patterns whose mean is at least as far from zero as the one seen. Exact to 16 differences;
    beyond, 50,000 random patterns, the one seen counted among them (Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585).
    """
    n = len(differences)
    if n == 0:
        return 1.0
    seen = abs(differences.sum())
    if n <= EXACT_UP_TO:
        extreme = np.abs(sign_patterns(n) @ differences) >= seen * (1 - 1e-9)  # rounding must not lose the pattern seen
        return float(extreme.mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (50_000, n))
    return float((1 + (np.abs(signs @ differences) >= seen * (1 - 1e-9)).sum()) / 50_001)


@lru_cache(EXACT_UP_TO)
def sign_patterns(n: int) -> Array:
    """(2^(n-1), n): every pattern up to a flip of all, which changes no absolute value."""
    rest = np.array(list(itertools.product([1.0, -1.0], repeat=n - 1))).reshape(2 ** (n - 1), n - 1)
    return np.hstack([np.ones((len(rest), 1)), rest])


def smallest_p(n: int) -> float:
    """The least p value that ``n`` signs can give, two-sided: 2 of 2^n patterns."""
    return min(1.0, 2.0 ** (1 - n))


def least_seeds(comparisons: int) -> int:
    """Seeds from which the sign-flip test can reach the level at Holm's first step."""
    return next(n for n in itertools.count(1) if smallest_p(n) * comparisons <= ALPHA)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979, https://www.jstor.org/stable/4615733), in the order of ``p``.

    The i-th smallest of m is multiplied by m - i + 1; none falls below a smaller one's.
    """
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[index] * (len(p) - rank)))
        adjusted[index] = largest
    return adjusted


def superiority(differences: Array) -> tuple[float, float, float]:
    """P(A > B), the share of seeds at which A is ahead (ties half), with its Clopper-Pearson interval.

    As Bouthillier et al. 2021 (https://arxiv.org/abs/2103.03098) propose for comparing learning algorithms.
    """
    n, ahead = len(differences), (differences > 0).sum() + (differences == 0).sum() / 2
    if n == 0:
        return math.nan, 0.0, 1.0
    low = stats.beta.ppf(ALPHA / 2, ahead, n - ahead + 1) if ahead > 0 else 0.0
    high = stats.beta.ppf(1 - ALPHA / 2, ahead + 1, n - ahead) if ahead < n else 1.0
    return float(ahead / n), float(low), float(high)


def seed_shares(n: int, replicates: int = REPLICATES) -> Array:
    """(R, n): the share of each seed in every bootstrap replicate.

    n - 1 seeds are drawn with replacement, not n: with n the variance of a mean comes out too small by the factor
    (n - 1) / n, which matters at five seeds (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789, sec. 3.3).
    """
    draws = max(1, n - 1)
    return np.random.default_rng(1).multinomial(draws, np.full(n, 1 / n), replicates) / draws


def image_counts(n: int, replicates: int = REPLICATES) -> Array:
    """(R, n): how often each image is drawn in every replicate; the same for every run, so that images stay paired."""
    return np.random.default_rng(2).multinomial(n, np.full(n, 1 / n), replicates)


def interval(differences: Array, replicates: Array, images: int = 0) -> tuple[float, float]:
    """Interval of the mean of ``differences`` (n,), one a seed: mean -+ Student's t times the replicates' spread.

    A percentile interval of five seeds covers about 85 % of the time when it says 95 %. The degrees of freedom are
    Satterthwaite's (1946, https://doi.org/10.2307/3002019) of two parts: what the seeds alone contribute has n - 1,
    what the ``images`` add to it has ``images`` - 1. Without images this is Student's interval; one seed
    gives none.
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
    """Where each arm's rank lies, 1 the largest: percentiles over replicates (A, R) around ``means`` (A,).

    The replicates are spread by t / z, so that a few seeds give no more certainty about ranks than about differences.
    """
    wider = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) / stats.norm.ppf((1 + LEVEL) / 2)
    spread = means[:, None] + wider * (replicates - replicates.mean(1, keepdims=True))
    ranks = 1 + (spread[None] > spread[:, None]).sum(1)
    low, high = np.percentile(ranks, [50 * ALPHA, 100 - 50 * ALPHA], axis=1, method="nearest")
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def interaction(table: Array) -> tuple[Array, float]:
    """What two factors do beyond the sum of their effects: (I, J) deviations, and p for "nothing".

    ``table`` is (I, J, S), one two-way table a seed. Without interaction a seed's doubly centred table could as well
    have the opposite sign: p is the share of sign patterns whose mean table has at least the sum of squares seen.
    """
    centred = table - table.mean(0, keepdims=True) - table.mean(1, keepdims=True) + table.mean((0, 1), keepdims=True)
    n = table.shape[2]
    rng = np.random.default_rng(0)
    signs = sign_patterns(n) if n <= EXACT_UP_TO else np.vstack([np.ones(n), rng.choice([-1.0, 1.0], (20_000, n))])
    squares = ((signs @ centred.reshape(-1, n).T) ** 2).sum(1)
    return centred.mean(2), float((squares >= squares[0] * (1 - 1e-9)).mean())


def unpaired(a: Array, b: Array) -> tuple[float, float, float, float]:
    """Difference of means, its Welch interval and a permutation p value, of two groups that share no seed."""
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


@lru_cache(256)
def detectable(n: int, alpha: float) -> float:
    """The smallest true difference, in spreads of the paired differences, that ``n`` seeds show with 80 % power.

    Of the sign-flip test itself, for normal differences; infinite where ``n`` signs cannot reach ``alpha``.
    """
    if smallest_p(n) > alpha:
        return math.inf
    if n > SIMULATED_UP_TO:
        critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
        return bisect(lambda shift: bool(stats.nct.sf(critical, n - 1, shift) >= POWER), critical + 5) / math.sqrt(n)
    noise = np.random.default_rng(3).standard_normal((1000, n))
    patterns = sign_patterns(n)

    def powerful(difference: float) -> bool:
        sums = (noise + difference) @ patterns.T  # (R, 2^(n-1)), the pattern seen first
        p = (np.abs(sums) >= np.abs(sums[:, :1]) * (1 - 1e-9)).mean(1)
        return bool((p <= alpha).mean() >= POWER)

    return bisect(powerful, 10.0)


def bisect(holds: Callable[[float], bool], high: float) -> float:
    """The least value, to three digits, from which ``holds`` holds."""
    low = 0.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def seeds_needed(effect: float, alpha: float, most: int = 1000) -> int | None:
    """Seeds that show a true difference of ``effect`` spreads with 80 % power; None where ``most`` do not."""
    low, high = 1, most
    if not effect > 0 or detectable(most, alpha) > effect:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(middle, alpha) <= effect else (middle, high)
    return high
