"""Operators compared at one budget."""

import pytest

from unet import DOWN, UP, UNet
from unet.analysis.width_matching import match_width
from unet.errors import UserError
from unet.network.geometry import count_flops, count_parameters

BASE = {"width": 16, "depth": 2, "down": "max", "up": "transposed", "context": "none", "skip": "concat"}
COMMON = {"in_channels": 3, "num_classes": 2, "spatial_dims": 2}
SIZE = (32, 32)
COSTS = {
    "parameters": lambda settings: count_parameters(UNet(**settings)),
    "flops": lambda settings: count_flops(UNet(**settings), (1, 3, *SIZE)),
}
ARMS = [{"down": name} for name in DOWN] + [{"up": name} for name in UP] + [{"skip": "none"}, {"context": "aspp"}]


@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
@pytest.mark.parametrize("budget", COSTS)
@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_every_operator_meets_the_budget_within_two_percent(arm: dict[str, str], budget: str):
    settings = {**BASE, **COMMON, **arm}
    target = COSTS[budget]({**BASE, **COMMON})
    found = match_width({**settings, "match": budget}, SIZE)
    assert "match" not in found
    assert {key: value for key, value in found.items() if key != "width"} == {
        key: value for key, value in settings.items() if key != "width"
    }
    assert COSTS[budget](found) == pytest.approx(target, rel=0.02)


def test_without_a_budget_nothing_changes():
    assert match_width({**BASE, "match": None}, SIZE) == BASE


def test_the_reference_keeps_its_width():
    assert match_width({**BASE, **COMMON, "match": "parameters"}, SIZE)["width"] == [16, 32, 64]


def test_a_budget_that_cannot_be_met_says_so():
    tiny = {**BASE, **COMMON, "width": 1, "up": "carafe", "match": "parameters"}  # whose own network is larger than all
    with pytest.raises(UserError, match=r"model.match=parameters: no widths .* larger model.width"):
        match_width(tiny, SIZE)


def test_an_unknown_budget_names_the_nearest():
    with pytest.raises(UserError, match="did you mean flops"):
        match_width({**BASE, **COMMON, "match": "flop"}, SIZE)
