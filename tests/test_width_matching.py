"""Width matching: every operator gets the parameters or FLOPs of the reference."""

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
CHANGES = [{"down": name} for name in DOWN] + [{"up": name} for name in UP] + [{"skip": "none"}, {"context": "aspp"}]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
@pytest.mark.parametrize("budget", COSTS)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_operator_meets_the_budget_within_two_percent(change: dict[str, str], budget: str):
    settings = {**BASE, **COMMON, **change}
    target = COSTS[budget]({**BASE, **COMMON})
    matched = match_width({**settings, "match": budget}, SIZE)
    assert matched | {"width": 0} == settings | {"width": 0}
    assert COSTS[budget](matched) == pytest.approx(target, rel=0.02)


def test_without_a_budget_or_for_the_reference_the_widths_stay():
    assert match_width({**BASE, "match": None}, SIZE) == BASE
    assert match_width({**BASE, **COMMON, "match": "parameters"}, SIZE)["width"] == [16, 32, 64]


def test_a_budget_without_a_matching_width_is_refused():
    settings = {**BASE, **COMMON, "width": 1, "up": "carafe", "match": "parameters"}  # carafe alone exceeds the budget
    with pytest.raises(UserError, match=r"model.match=parameters: no widths .* larger model.width"):
        match_width(settings, SIZE)
