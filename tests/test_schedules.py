"""Learning-rate schedules: bounds for any number of steps, and the values at their ends."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet.errors import UserError
from unet.task.schedules import SCHEDULES, make_schedule


def rates(name: str, steps: int, warmup: float) -> list[float]:
    """Return the learning rate of every step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR's own call of a deprecated argument
        schedule = make_schedule(name, optimizer, steps, warmup)
        values = []
        for _ in range(steps):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    return values


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 60), st.sampled_from([0, 0.05, 0.1, 0.5, 1]))
def test_every_schedule_stays_within_its_bounds_however_short_the_run(name: str, steps: int, warmup: float):
    assert all(math.isfinite(rate) and 0 <= rate <= 0.5 * (1 + 1e-9) for rate in rates(name, steps, warmup))


@pytest.mark.parametrize("steps", [20, 100, 1750])
def test_one_cycle_reaches_the_learning_rate_after_the_warmup_and_ends_near_0(steps: int):
    values = rates("one_cycle", steps, 0.1)
    assert values[0] == pytest.approx(0.5 / 25)
    assert max(values) == pytest.approx(0.5) and abs(values.index(max(values)) - 0.1 * steps) <= 1
    assert values[-1] < 1e-4 * 0.5


def test_poly_falls_as_a_power_of_the_remaining_steps():
    values = rates("poly", 110, 10 / 110)
    assert values[10] == pytest.approx(0.5) and values[60] == pytest.approx(0.5 * 0.5**0.9)
    assert 0 < values[-1] < 0.5 * 0.02


def test_the_constant_schedule_alone_needs_no_number_of_steps():
    assert set(rates("constant", 5, 0.1)) == {0.5}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    make_schedule("constant", optimizer, float("inf"), 0.1)
    for name in ("one_cycle", "cosine", "poly"):
        with pytest.raises(UserError, match=f"optim.schedule={name} needs an end"):
            make_schedule(name, optimizer, float("inf"), 0.1)
