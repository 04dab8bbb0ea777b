"""The expected calibration error and the temperature, against values computed by hand and known distributions."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.diagnostics import calibration as module
from unet.diagnostics.calibration import calibration, calibration_error, fit_temperature


def log_probabilities(*first: float) -> torch.Tensor:
    """Return the logits (N, 2) of pixels by the probability of class 0."""
    return torch.tensor([[p, 1 - p] for p in first], dtype=torch.float64).log()


def test_calibration_error_by_hand():
    # Class 0 is predicted four times, with 0.92 (right), 0.94 (wrong), 0.62 (right), 0.61 (right).
    scores = calibration_error(log_probabilities(0.92, 0.94, 0.62, 0.61), torch.tensor([0, 1, 0, 0]))
    assert scores["calibration/accuracy/90-95"] == 0.5
    assert scores["calibration/accuracy/60-65"] == 1.0
    assert scores["calibration/ece"] == pytest.approx((abs(1.86 - 1) + abs(1.23 - 2)) / 4)
    assert scores["calibration/gap"] == pytest.approx((0.92 + 0.94 + 0.62 + 0.61) / 4 - 3 / 4)
    assert len(scores) == 4, "no bins without pixels"


def test_certain_and_right_has_no_error():
    scores = calibration_error(torch.tensor([[80.0, 0.0], [0.0, 80.0]]), torch.tensor([0, 1]))
    assert scores["calibration/ece"] == pytest.approx(0) and scores["calibration/accuracy/95-100"] == 1


@settings(max_examples=10, deadline=None)
@given(factor=st.sampled_from([0.3, 1.0, 2.0, 5.0]), classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_the_temperature_is_the_factor_by_which_calibrated_logits_were_multiplied(factor, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40_000, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert calibration_error(logits, target)["calibration/ece"] < 0.02
    temperature = fit_temperature(logits * factor, target)
    assert temperature == pytest.approx(factor, rel=0.05)
    error, gap = (calibration_error(logits * factor, target)[f"calibration/{name}"] for name in ("ece", "gap"))
    assert factor == 1 or (error > 0.03 and math.copysign(1, gap) == math.copysign(1, factor - 1))


def test_there_is_no_temperature_where_no_validation_pixel_is_wrong(monkeypatch):
    right = log_probabilities(0.9, 0.8), torch.tensor([0, 0])
    wrong = log_probabilities(0.9, 0.8), torch.tensor([0, 1])
    for val, has_temperature in ((right, False), (wrong, True)):
        pixels = {"val": val, "test": wrong}
        monkeypatch.setattr(module, "collect_logits", lambda task, data, split, pixels=pixels: pixels[split])
        data: Any = SimpleNamespace(samples={"val": [], "test": []})
        assert ("calibration/temperature" in calibration(Any, data, "test")) == has_temperature
        assert "calibration/temperature" not in calibration(Any, data, "val")
