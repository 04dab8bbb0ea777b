"""Initial weights depend on the seed and the names of the modules: arms of a sweep begin with equal values."""

from collections.abc import Callable, Mapping
from itertools import combinations
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unet import CONTEXT, DOWN, UP, UNet
from unet.errors import UserError
from unet.training.build import build_data, build_task
from unet.training.seeded_network import build_network

KINDS = {"down": (DOWN, "downs."), "up": (UP, "ups."), "context": (CONTEXT, "context.")}


def weights(seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    return build_network({"width": 4, "depth": 2, **settings}, seed).state_dict()


def common(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that have the same shape in both."""
    return [name for name in first if name in second and first[name].shape == second[name].shape]


def has_own_distribution(name: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor is the bias of weights of two shapes: its range depends on theirs."""
    weight = name.replace("bias", "weight")
    return name.endswith("bias") and first[weight].shape != second[weight].shape


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_operators_shares_the_tensors_of_equal_names_and_shapes(kind: str, spatial_dims: int):
    registry, prefix = KINDS[kind]
    states = {
        name: weights(**{kind: name, "spatial_dims": spatial_dims})
        for name in registry
        if name != "bicubic" or spatial_dims == 2
    }
    for (one, first), (other, second) in combinations(states.items(), 2):
        unequal = [name for name in common(first, second) if not torch.equal(first[name], second[name])]
        assert all(name.startswith(prefix) for name in unequal)
        if "pixel_shuffle" not in (one, other):  # its kernels are copies
            assert all(has_own_distribution(name, first, second) for name in unequal), (one, other)


def test_operators_share_their_own_layers_too():
    carafe, sapa, dysample = (weights(up=name) for name in ("carafe", "sapa", "dysample"))
    assert torch.equal(carafe["ups.1.mix.weight"], sapa["ups.1.mix.weight"])
    assert torch.equal(carafe["ups.1.mix.bias"], dysample["ups.1.mix.bias"])
    spp, ppm = weights(width=3, context="spp"), weights(width=3, context="ppm")  # 12 + 3 x 4 = 12 + 4 x 3 channels
    assert torch.equal(spp["context.fuse.0.weight"], ppm["context.fuse.0.weight"])


@pytest.mark.parametrize(
    "change", [{"skip": "none"}, {"norm": "none"}, {"depth": 3}, {"num_classes": 5}, {"act": "elu"}]
)
def test_networks_that_differ_otherwise_share_the_weights_of_equal_shape(change: dict[str, Any]):
    first, second = weights(), weights(**change)
    names = [name for name in common(first, second) if name.endswith("weight")]
    assert len(names) > 10 and all(torch.equal(first[name], second[name]) for name in names)


def test_another_seed_gives_other_values_and_the_same_seed_the_same():
    first, again, other = weights(seed=1), weights(seed=1), weights(seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    random = [name for name in first if first[name].is_floating_point() and len(first[name].unique()) > 1]
    assert len(random) == 16 and not any(torch.equal(first[name], other[name]) for name in random)


def test_layers_of_equal_shape_differ():
    state = weights(context="spp", width=8)
    tensors = [value for value in state.values() if value.ndim > 1]
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in combinations(tensors, 2))


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_every_layer_has_the_distribution_of_its_constructor(spatial_dims: int):
    state = weights(width=16, spatial_dims=spatial_dims, context="ppm")
    for name, value in state.items():
        if value.ndim > 1 and value.numel() > 1000:
            channels = value.shape[0 if name.startswith("ups") else 1]
            fan_in = channels * prod(value.shape[2:]) / (2 if name.startswith("ups") else 1)  # torch takes Cout there
            std = (3 * fan_in) ** -0.5  # uniform within 1 / sqrt(fan_in)
            assert value.std().item() == pytest.approx(std, rel=0.08), name
            assert 0.98 < value.abs().max().item() * fan_in**0.5 <= 1, name
        elif "running" in name or name.endswith((".1.weight", ".1.bias")):
            assert value.unique().item() == float(name.endswith(("var", "weight"))), name


def test_operators_with_initial_values_of_their_own_keep_them():
    kernels = weights(up="pixel_shuffle")["ups.0.conv.weight"].unflatten(0, (-1, 4))
    assert torch.equal(kernels, kernels[:, :1].expand_as(kernels)) and len(kernels.unique()) > 100
    offset = weights(up="dysample", width=64)["ups.0.offset.weight"]
    assert offset.std().item() == pytest.approx(0.001, rel=0.1)
    assert weights(down="gem")["downs.0.p"].unique().tolist() == [3]


def test_a_new_operator_needs_no_code_for_it(monkeypatch: pytest.MonkeyPatch):
    class Learned(nn.Module):
        def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...]):
            super().__init__()
            self.first = nn.Parameter(torch.randn(500))
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.conv.weight.data.normal_(5, 0.1)
            self.second = nn.Parameter(torch.randn(500))

    monkeypatch.setitem(UP._classes, "learned", Learned)
    state, after_other_downs, plain = weights(up="learned"), weights(up="learned", down="strided"), weights()
    assert all(torch.equal(after_other_downs[name], value) for name, value in state.items())
    assert all(torch.equal(state[name], plain[name]) for name in common(state, plain) if not name.startswith("ups"))
    assert state["ups.0.conv.weight"].mean().item() == pytest.approx(5, abs=0.1)
    samples = torch.stack([state[f"ups.{level}.{name}"] for level in (0, 1) for name in ("first", "second")])
    assert torch.corrcoef(samples).fill_diagonal_(0).abs().max() < 0.2


def test_a_network_in_user_code_follows_the_seed_of_torch():
    torch.manual_seed(3)
    expected = nn.Conv2d(3, 4, 3).weight
    build_network({"width": 4, "depth": 1}, 0)
    with pytest.raises(UserError):
        build_network({"up": "none"}, 0)
    torch.manual_seed(3)
    assert torch.equal(UNet(width=4, depth=1).state_dict()["stem.0.0.weight"], expected)


@pytest.mark.parametrize("arm", [[], ["model.up=bilinear"], ["model.down=strided", "model.context=spp"]])
def test_a_training_begins_with_these_weights_and_leaves_the_generator_as_it_was(
    composed: Callable[..., Any], arm: list[str]
):
    settings = composed("seed=5", *arm)
    data = build_data(settings)
    data.scan()
    before = torch.get_rng_state()
    net: Any = build_task(settings, data).net
    assert torch.equal(torch.get_rng_state(), before)
    expected = weights(seed=5, in_channels=1)
    state = net.state_dict()
    names = [name for name in common(state, expected) if not name.startswith(("ups", "downs", "context"))]
    assert len(names) > 30 and all(torch.equal(state[name], expected[name]) for name in names)
