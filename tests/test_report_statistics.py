"""Check the statistics of a report by hand, or on simulated sweeps with a known truth."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom

from unet.report import statistics
from unet.report.comparison import Scores, compare_pair, correct_family, estimate_contrast, estimate_effects


def scores_of(values: np.ndarray, resampled: np.ndarray | None = None, images: int = 0) -> Scores:
    labels = [f"arm {arm}" for arm in range(len(values))]
    return Scores(labels, list(range(values.shape[1])), values, resampled, images)


def test_sign_flips_by_hand():
    """Of the 8 sign patterns of (1, 2, 3) two sum to 6 in size; (1, 2, -3) sums to 0, as all do at least."""
    assert statistics.sign_flip_p(np.array([1.0, 2, 3])) == 2 / 8
    assert statistics.sign_flip_p(np.array([1.0, 2, -3])) == 1
    assert statistics.sign_flip_p(np.array([1.0, -2, 3])) == 6 / 8  # sums +-2, +-4 and +-6 of 0, 2, 4, 6
    assert statistics.sign_flip_p(np.full(6, 0.1)) == 2 / 64
    assert statistics.sign_flip_p(np.array([0.5])) == 1
    assert statistics.sign_flip_p(np.array([])) == 1


def test_sign_flips_agree_with_scipy():
    differences = np.random.default_rng(0).normal(0.4, 1, 10)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert statistics.sign_flip_p(differences) == pytest.approx(expected)
    many = np.random.default_rng(1).normal(0.5, 1, 30)
    assert statistics.sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)


def test_step_down_by_hand():
    """Three seeds, four patterns: (+++), (++-), (+-+), (+--).

    Sums of a = (2, 2, 2): 6, 2, 2, 2. Of b = (1, 1, -1): 1, 3, 1, 1. Of c, which lacks a seed, (1, 0, -) / 2 in means.
    a: 6 is reached once. b: 1 is reached by itself in all four. c: its mean 1/2 is reached by itself in all four.
    """
    differences = np.array([[2.0, 2, 2], [1, 1, -1], [1, 0, math.nan]])
    assert statistics.flipped_means(differences).tolist() == pytest.approx(
        np.array([[2, 1 / 3, 0.5], [2 / 3, 1, 0.5], [2 / 3, 1 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    )
    assert statistics.step_down_p(differences) == [1 / 4, 1, 1]
    # Beside a, which is as large as it under one pattern more, d = (1, 1, 1) is no longer alone: 2/3 < 1, so it is.
    assert statistics.step_down_p(np.array([[2.0, 2, 2], [1, 1, 1]])) == [1 / 4, 1 / 4]
    # A smaller mean has at least the p of a larger one: b under a scale that makes it the largest.
    assert statistics.step_down_p(np.array([[1.0, 1, 1], [8, 8, -8]])) == [1, 1]
    assert statistics.step_down_p(np.array([[1.0, 1, 1], [8, 8, -8]]), np.array([1.0, 100.0])) == [1 / 4, 1]


def test_the_critical_difference_is_the_limit_of_claims():
    noise = np.random.default_rng(0).normal(0, 1, (10, 7))
    limit = statistics.critical_difference(noise)
    for size, claimed in ((1.001 * limit, True), (0.5 * limit, False)):
        p = statistics.step_down_p(np.vstack([noise, np.full(7, size)]))[-1]
        assert (p <= 0.05) == claimed
    assert math.isinf(statistics.critical_difference(noise[:, :5]))


def test_superiority_counts_ties_as_half():
    share, low, high = statistics.superiority(np.array([1.0, 2, 0, -1]))
    assert share == 2.5 / 4 and 0 < low < share < high < 1
    exact = stats.binomtest(6, 6).proportion_ci(0.95, "exact")
    assert statistics.superiority(np.ones(6)) == pytest.approx((1, exact.low, 1))


def test_the_interval_of_seeds_is_students():
    differences = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    result = compare_pair(scores_of(np.stack([differences, np.zeros(5)])), 0, 1)
    low, high = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    assert (result.low, result.high) == pytest.approx((low, high))
    shares = statistics.seed_shares(5)
    assert shares.sum(1) == pytest.approx(1)
    assert (shares @ differences).std() == pytest.approx(stats.sem(differences), rel=0.05)


def test_images_widen_the_interval_and_are_paired():
    """Noise that the same images bring to both arms cancels; noise of its own on each image does not."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.6, 0.01, (2, 8))
    images = 50
    draws = statistics.image_counts(images) / images
    easy = draws @ rng.normal(0, 0.2, images)
    shared = values[..., None] + easy - easy.mean()
    alone = shared.copy()
    own = draws @ rng.normal(0, 0.2, images)
    alone[0] += own - own.mean()
    seeds, paired, wide = (compare_pair(scores_of(values, r, images), 0, 1) for r in (None, shared, alone))
    assert paired.high - paired.low == pytest.approx(seeds.high - seeds.low, rel=0.1)
    assert wide.high - wide.low > 2 * (seeds.high - seeds.low)
    assert paired.difference == seeds.difference


def covered(n: int, images: int, trials: int, rng: np.random.Generator) -> int:
    """Of ``trials`` sweeps of two arms with a true difference of 0.02, return how many intervals contain it."""
    inside = 0
    draws = statistics.image_counts(images) / images
    for _ in range(trials):
        by_image = rng.normal(0, 0.05, images)
        by_seed = rng.normal(0.02, 0.01, n)
        by_both = by_image[None] + rng.normal(0, 0.02, (n, images))  # (S, N): each image's difference at each seed
        values = np.stack([by_seed + by_both.mean(1), np.zeros(n)])
        resampled = np.stack([by_seed[:, None] + by_both @ draws.T, np.zeros((n, len(draws)))])
        result = compare_pair(scores_of(values, resampled, images), 0, 1)
        inside += result.low <= 0.02 <= result.high
    return inside


@pytest.mark.parametrize("n", [4, 8])
def test_the_two_level_interval_has_its_coverage(n: int):
    trials = 200
    inside = covered(n, 40, trials, np.random.default_rng(n))
    assert binom.ppf(0.001, trials, 0.95) <= inside


def claims(
    trials: int, arms: int, n: int, effect: float, rng: np.random.Generator, noise: str = "standard_normal"
) -> int:
    """How many of ``trials`` sweeps claim any difference, the last arm being better by ``effect`` spreads."""
    claiming = 0
    for _ in range(trials):
        values = getattr(rng, noise)((arms, n)) + rng.normal(0, 3, n)
        values[-1] += effect
        pairs = [compare_pair(scores_of(values), a, b) for a in range(arms) for b in range(a)]
        claiming += any(result.is_claimed for result in correct_family(pairs))
    return claiming


def test_false_claims_without_an_effect():
    trials = 150
    assert claims(trials, 3, 8, 0.0, np.random.default_rng(0)) <= binom.ppf(0.999, trials, 0.05)
    assert claims(trials, 5, 6, 0.0, np.random.default_rng(1)) <= binom.ppf(0.999, trials, 0.05)
    skewed = claims(trials, 4, 7, 0.0, np.random.default_rng(2), "standard_exponential")
    assert skewed <= binom.ppf(0.999, trials, 0.05)


def test_false_claims_beside_true_differences():
    """Six seeds, six arms, three of them equal and the others far apart: the 12 true differences are claimed, and the
    three false ones claimed in at most one sweep of twenty."""
    rng, trials, false, true = np.random.default_rng(0), 100, 0, 0
    truth = np.array([0, 0, 0, 20, 40, 60.0])
    for _ in range(trials):
        values = truth[:, None] + rng.normal(0, 1, (6, 6))
        pairs = [(truth[a] == truth[b], compare_pair(scores_of(values), a, b)) for a in range(6) for b in range(a)]
        claimed = [c.is_claimed for c in correct_family([c for _, c in pairs])]
        equal = [same for same, _ in pairs]
        false += any(c for c, same in zip(claimed, equal, strict=True) if same)
        true += sum(c for c, same in zip(claimed, equal, strict=True) if not same)
    assert false <= binom.ppf(0.999, trials, 0.05)
    assert true >= 0.95 * 12 * trials


def test_metrics_of_different_units_are_corrected_together():
    """A small and sure difference in one unit beside large and unsure ones in another."""
    rng = np.random.default_rng(0)
    values = np.vstack([rng.normal(1e-3, 1e-4, 6), rng.normal(0, 1e6, (4, 6)), np.zeros(6)])
    pairs = [compare_pair(scores_of(values), arm, 5) for arm in range(5)]
    assert not correct_family(pairs)[0].is_claimed
    assert correct_family(pairs, ["share", *["bytes"] * 4])[0].is_claimed


def test_a_large_effect_is_claimed_but_never_with_three_seeds():
    assert claims(30, 3, 8, 6.0, np.random.default_rng(1)) >= 28
    assert claims(30, 2, 3, 50.0, np.random.default_rng(2)) == 0


def differences_of(values: np.ndarray) -> np.ndarray:
    """(C, S): every pair of the arms (A, S)."""
    return np.stack([values[a] - values[b] for a in range(len(values)) for b in range(a)])


def test_the_detectable_difference_has_the_stated_power():
    """Computed from one sweep of four equal arms, tested in another where one arm is better by that difference."""
    rng, trials, detected = np.random.default_rng(0), 100, 0
    for _ in range(trials):
        least = statistics.detectable_difference(differences_of(rng.normal(0, 1, (4, 8))))
        values = rng.normal(0, 1, (4, 8))
        difference = values[0] + least - values[1]
        detected += statistics.step_down_p(np.vstack([differences_of(values)[1:], difference]))[-1] <= 0.05
    assert 0.65 * trials <= detected <= 0.9 * trials  # a sweep's own limit is uncertain too
    few = statistics.detectable_difference(differences_of(rng.normal(0, 1, (4, 3))))
    assert few > least and math.isnan(statistics.detectable_difference(np.ones((3, 1))))


def test_rank_intervals():
    rng = np.random.default_rng(0)
    means = np.array([0.9, 0.5, 0.5])
    replicates = means[:, None] + rng.normal(0, 0.01, (3, 500))
    assert statistics.rank_intervals(means, replicates, 10) == [(1, 1), (2, 3), (2, 3)]


def test_main_effects_of_two_factors():
    """Cells = row effect + column effect, and one seed's noise in all cells alike: no interaction at all."""
    rows, columns = np.array([0.0, 1.0]), np.array([0.0, 0.1, 0.3])
    seeds = np.random.default_rng(0).normal(0, 1, 7)
    values = (rows[:, None, None] + columns[None, :, None] + seeds).reshape(6, 7)
    arms = {3 * i + j: {"a": str(i), "b": str(j)} for i in range(2) for j in range(3)}
    result = estimate_effects(scores_of(values), ("a", "b"), arms)
    assert [c.difference for c in result.main[0]] == pytest.approx([1.0])
    assert [c.difference for c in result.main[1]] == pytest.approx([0.1, 0.3, 0.2])
    assert all(c.p_adjusted == pytest.approx(2 / 2**7) for c in (*result.main[0], *result.main[1]))
    assert result.deviations == pytest.approx(np.zeros((2, 3)), abs=1e-12)


def test_an_interaction_needs_all_cells():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, (4, 8))
    values[3] += 2
    arms = {2 * i + j: {"a": str(i), "b": str(j)} for i in range(2) for j in range(2)}
    result = estimate_effects(scores_of(values), ("a", "b"), arms)
    assert result.deviations is not None and result.deviations[1, 1] == pytest.approx(0.5, abs=0.1)
    assert result.p == 2 / 2**8
    assert estimate_effects(scores_of(values[:3]), ("a", "b"), {i: arms[i] for i in range(3)}).deviations is None


def test_a_contrast_uses_the_settings_that_a_seed_has():
    """Settings (0, 1) and (2, 3) differ by 1 and by 3; the second has no seed 2."""
    values = np.array([[1.0, 1, 1], [0, 0, 0], [3, 3, math.nan], [0, 0, 0]])
    weights = np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    assert estimate_contrast(scores_of(values), weights, "").differences == pytest.approx([2, 2, 1])


@pytest.mark.slow
def test_error_rates_over_many_sweeps():
    rng = np.random.default_rng(7)
    trials = 1000
    assert claims(trials, 4, 9, 0.0, rng) <= binom.ppf(0.999, trials, 0.05)
    inside = covered(6, 60, trials, rng)
    assert binom.ppf(0.001, trials, 0.94) <= inside
