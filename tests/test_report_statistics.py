"""Check the statistics of a report by hand, or on simulated sweeps with a known truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom

from unet.report import power, statistics
from unet.report.comparison import (
    BETTER,
    EQUAL,
    TOO_FEW,
    UNDECIDED,
    Contrast,
    Scores,
    compare_pair,
    estimate_contrast,
    tabulate_factors,
    with_joint_intervals,
)

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1,
    "unequal shapes": lambda rng, shape: np.concatenate(
        [
            rng.standard_normal((shape[0] // 2, *shape[1:])),
            rng.standard_exponential((shape[0] - shape[0] // 2, *shape[1:])) - 1,
        ]
    ),
    "unequal spreads": lambda rng, shape: rng.standard_normal(shape) * np.linspace(0.3, 1.7, shape[0])[:, None],
}


def scores_of(values: np.ndarray, influences: np.ndarray | None = None) -> Scores:
    labels = [f"arm {arm}" for arm in range(len(values))]
    return Scores(labels, list(range(values.shape[1])), values, influences)


def against_the_first(values: np.ndarray) -> list[Contrast]:
    """Compare every arm (A, S) with the first, as a family."""
    scores = scores_of(values)
    return with_joint_intervals([compare_pair(scores, arm, 0) for arm in range(1, len(values))])


def test_the_critical_value_by_hand():
    """Deviations (-1, 1, 0): the 4 sign patterns have means 0, -2/3, 0, 2/3 in some order, t of 0 or 2 is infinite.

    The mean square is 2/3; of a mean of 2/3 the variance is (2/3 - 4/9) / 2 = 1/9, so t = 2.
    """
    differences = np.array([[0.0, 2, 1]])
    assert statistics.critical_value(differences, alpha=0.45) == pytest.approx(2)
    assert statistics.critical_value(np.vstack([differences, [[5.0, 5, 5]]]), alpha=0.45) == pytest.approx(2)
    assert statistics.critical_value(differences, alpha=0.35) == math.inf  # 2/3 of it is less than one of 4 patterns
    assert statistics.critical_value(np.ones((2, 8))) == 0


def test_one_comparison_has_nearly_students_interval():
    """Averaged over samples of normal values, the critical value of one comparison is the quantile of Student's t."""
    rng = np.random.default_rng(0)
    values = [statistics.critical_value(rng.standard_normal((1, 12))) for _ in range(200)]
    assert np.mean(values) == pytest.approx(stats.t.ppf(0.975, 11), rel=0.05)
    assert statistics.critical_value(rng.standard_normal((1, 30))) == pytest.approx(stats.t.ppf(0.975, 29), rel=0.1)
    assert statistics.critical_value(rng.standard_normal((20, 12))) > 1.3 * stats.t.ppf(0.975, 11)


def test_few_seeds_have_students_interval_and_no_verdict():
    differences = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    (result,) = against_the_first(np.stack([np.zeros(5), differences]))
    low, high = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    assert (result.low, result.high) == pytest.approx((low, high)) and low > 0
    assert result.verdict(0.01) == TOO_FEW


def test_verdicts():
    """The same differences around 0, 0.005 and 0.05, and with a spread that no margin holds."""
    noise = np.array([-3, -2, -1, 0, 1, 2, 3, 0.0]) * 1e-3
    values = np.stack([np.zeros(8), noise, noise + 0.005, noise + 0.05, 30 * noise])
    assert [c.verdict(0.01) for c in against_the_first(values)] == [EQUAL, EQUAL, BETTER, UNDECIDED]
    assert against_the_first(values)[2].verdict(0.01, sign=-1) == "worse"
    assert against_the_first(values)[1].verdict(0.004) == BETTER  # 0.005 is more than this margin


@pytest.mark.parametrize("noise", NOISES)
def test_intervals_hold_together(noise: str):
    """Six arms, five against the first; true differences of 0 and of the margin: at most 5 % of sweeps say anything
    false, whether "better" of equal arms or "practically equal" of arms that differ by the margin."""
    rng, trials, margin, false = np.random.default_rng(0), 300, 3.0, 0
    truth = np.array([0, 0, 0, margin, -margin, margin])
    for _ in range(trials):
        contrasts = against_the_first(truth[:, None] + NOISES[noise](rng, (6, 9)))
        verdicts = [contrast.verdict(margin) for contrast in contrasts]
        false += any(verdict in (BETTER, "worse") for verdict in verdicts[:2]) or EQUAL in verdicts[2:]
    assert false <= binom.ppf(0.999, trials, 0.05)


@pytest.mark.parametrize("seeds", [6, 9])
def test_each_interval_covers(seeds: int):
    rng, trials, inside = np.random.default_rng(1), 300, 0
    for _ in range(trials):
        inside += sum(c.low <= 0 <= c.high for c in against_the_first(rng.standard_normal((4, seeds))))
    assert inside >= binom.ppf(0.001, trials * 3, 0.93)


def test_a_seed_that_affects_all_arms_does_not_widen_intervals():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 12))
    shared = values + rng.normal(0, 100, 12)
    for before, after in zip(against_the_first(values), against_the_first(shared), strict=True):
        assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_the_error_of_images_by_hand():
    """The jackknife of a mean: leaving out one of n values changes it by (mean - value) / (n - 1)."""
    values = np.array([1.0, 2, 4, 9])
    error, freedom = statistics.image_error((values.mean() - values) / 3)
    assert error == pytest.approx(stats.sem(values))
    assert 1 <= freedom <= 3
    many = np.random.default_rng(0).normal(0, 1, 400)
    assert statistics.image_error(many)[1] == pytest.approx(399, rel=0.1)
    sparse = np.zeros(100)
    sparse[:9] = np.random.default_rng(1).normal(0, 1, 9)
    assert statistics.image_error(sparse)[1] < 15  # nine images decide, not a hundred
    assert statistics.image_error(np.zeros(5)) == (0, math.inf)


def test_intervals_for_other_images_cover():
    """Forty images of two populations, one of them rare: the interval contains the difference in the population."""
    rng, trials, inside = np.random.default_rng(0), 200, 0
    for _ in range(trials):
        by_image = rng.normal(0.02, 0.05, 40) * np.where(rng.random(40) < 0.3, 3, 0.3)
        truth = 0.02 * (0.3 * 3 + 0.7 * 0.3)
        values = np.stack([np.zeros(8), by_image.mean() + rng.normal(0, 0.005, 8)])
        influences = np.zeros((2, 8, 40))
        influences[1] = (by_image.mean() - by_image) / 39
        (contrast,) = with_joint_intervals([compare_pair(scores_of(values, influences), 1, 0)])
        assert contrast.wide_low < contrast.low < contrast.high < contrast.wide_high
        inside += contrast.wide_low <= truth <= contrast.wide_high
    assert inside >= binom.ppf(0.001, trials, 0.93)


def test_images_that_change_both_arms_alike_cancel():
    rng = np.random.default_rng(0)
    influences = np.broadcast_to(rng.normal(0, 0.1, 30), (2, 8, 30))
    (contrast,) = with_joint_intervals([compare_pair(scores_of(rng.normal(0, 1, (2, 8)), influences), 0, 1)])
    assert (contrast.wide_low, contrast.wide_high) == pytest.approx((contrast.low, contrast.high))


def test_proportion_interval():
    exact = stats.binomtest(5, 6).proportion_ci(0.95, "exact")
    assert statistics.proportion_interval(5, 6) == pytest.approx((exact.low, exact.high))
    assert statistics.proportion_interval(0, 4)[0] == 0 and statistics.proportion_interval(4, 4)[1] == 1


@pytest.mark.parametrize(("arms", "seeds"), [(2, 8), (6, 9)])
def test_announced_power_is_the_power(arms: int, seeds: int):
    """The difference that is announced with 80 % is shown in 75 to 85 % of sweeps, on average over sweeps."""
    rng, trials = np.random.default_rng(0), 300
    announced = np.mean(
        [
            power.detectable_difference(
                np.stack([c.by_seed for c in against_the_first(rng.normal(0, 1, (arms, seeds)))])
            )
            for _ in range(20)
        ]
    )
    shown = 0
    for _ in range(trials):
        values = rng.normal(0, 1, (arms, seeds))
        values[1] += announced
        shown += against_the_first(values)[0].verdict(0.001) == BETTER
    assert 0.75 - 0.07 <= shown / trials <= 0.85 + 0.07  # 0.07: three standard errors of 300 sweeps


def test_more_seeds_are_needed_for_smaller_margins():
    differences = np.random.default_rng(0).normal(0, 0.01, (3, 12))
    needed = [power.seeds_needed(differences, margin) for margin in (0.1, 0.01, 0.005, 0.0001)]
    assert needed[0] == 6 and needed[3] is None
    assert needed[1] is not None and needed[2] is not None and 3 * needed[1] < needed[2] < 5 * needed[1]
    family = np.random.default_rng(1).normal(0, 0.01, (20, 12))  # its intervals are wider, whatever is asked of it
    alone = power.detectable_difference(differences)
    assert 1.1 * alone < power.detectable_difference(differences, family=np.vstack([differences, family])) < 2 * alone
    assert math.isnan(power.detectable_difference(np.ones((2, 8))))
    assert power.detectable_difference(differences[:, :4]) == math.inf


def test_an_interaction_needs_all_cells():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, (4, 8))
    values[3] += 2
    arms = {2 * i + j: {"a": str(i), "b": str(j)} for i in range(2) for j in range(2)}
    result = tabulate_factors(scores_of(values), ("a", "b"), arms)
    assert result.deviations is not None and result.deviations[1, 1] == pytest.approx(0.5, abs=0.1)
    assert result.p == 2 / 2**8
    assert tabulate_factors(scores_of(values[:3]), ("a", "b"), {i: arms[i] for i in range(3)}).deviations is None


def test_without_an_interaction_the_cells_are_the_sum_of_both_effects():
    rows, columns = np.array([0.0, 1.0]), np.array([0.0, 0.1, 0.3])
    seeds = np.random.default_rng(0).normal(0, 1, 7)
    values = (rows[:, None, None] + columns[None, :, None] + seeds).reshape(6, 7)
    arms = {3 * i + j: {"a": str(i), "b": str(j)} for i in range(2) for j in range(3)}
    result = tabulate_factors(scores_of(values), ("a", "b"), arms)
    assert result.deviations == pytest.approx(np.zeros((2, 3)), abs=1e-12) and result.seeds == 7


def test_a_contrast_uses_the_settings_that_a_seed_has():
    """Settings (0, 1) and (2, 3) differ by 1 and by 3; the second has no seed 2."""
    values = np.array([[1.0, 1, 1], [0, 0, 0], [3, 3, math.nan], [0, 0, 0]])
    weights = np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    assert estimate_contrast(scores_of(values), weights, "").differences == pytest.approx([2, 2, 1])
