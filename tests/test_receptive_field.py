"""Receptive fields compared with the extent of gradients, and with known values."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unet import CONTEXT, DOWN, UP, UNet
from unet.analysis.receptive_field import receptive_fields
from unet.errors import UserError
from unet.network.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

NETWORKS = [
    pytest.param({"down": "avg", "up": "transposed", "depth": 3}, id="avg-transposed"),
    pytest.param({"down": {"name": "strided", "kernel_size": 5}, "up": "nearest"}, id="strided-nearest"),
    pytest.param({"down": "blur", "up": "linear"}, id="blur-linear"),
    pytest.param({"down": ["avg", "strided_blur"], "up": ["pixel_shuffle", "bicubic"]}, id="mixed-per-stage"),
    pytest.param({"down": "pixel_unshuffle", "up": "carafe", "depth": 1}, id="unshuffle-carafe"),
    pytest.param({"down": "avg", "stride": [[1, 2], 3], "up": "linear"}, id="anisotropic"),
    pytest.param({"down": "strided", "up": "nearest", "skip": "none"}, id="no-skip"),
    pytest.param({"down": "strided", "up": "nearest", "skip": "attention", "block": "residual"}, id="attention"),
    pytest.param({"down": "avg", "up": "linear", "spatial_dims": 1, "stride": [2, 3]}, id="1d"),
    pytest.param({"down": "strided", "up": "nearest", "spatial_dims": 3, "depth": 1, "stride": [[1, 2, 2]]}, id="3d"),
]


def positive(settings: dict[str, Any]) -> UNet:
    """Return a network with positive weights, so that no gradient is 0 on positive images."""
    net = UNet(**({"in_channels": 1, "num_classes": 1, "width": 2, "depth": 2} | settings)).double().eval()
    for name, parameter in net.named_parameters():
        nn.init.constant_(parameter, 0 if name.endswith("bias") else 1 / max(1, parameter[0].numel()))
    return net


def gradient_extent(net: UNet, name: str) -> list[int]:
    """Return the extent along every axis of the gradient of one output in the middle of module ``name``."""
    outputs: list[Tensor] = []
    net.get_submodule(name).register_forward_hook(lambda module, args, output: outputs.append(output))
    least = 40 if net.spatial_dims == 3 else 128
    size = [m * -(-least // m) for m in net.total_stride]
    widest = [0] * net.spatial_dims
    for phase in range(math.prod(net.total_stride) if name == "head" else 1):
        image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
        net(image)
        output = outputs.pop()
        index = [n // 2 + phase % m for n, m in zip(output.shape[2:], net.total_stride, strict=True)]
        output[(0, slice(None), *index)].sum().backward()
        assert image.grad is not None
        positions = image.grad[0, 0].nonzero()
        extent = (positions.amax(0) - positions.amin(0) + 1).tolist()
        assert all(length < n for length, n in zip(extent, size, strict=True)), "the image is too small for this test"
        widest = [max(pair) for pair in zip(widest, extent, strict=True)]
    return widest


@pytest.mark.parametrize("settings", NETWORKS)
def test_fields_match_the_extent_of_the_gradient(settings: dict[str, Any]):
    net = positive(settings)
    fields = receptive_fields({"depth": 2} | settings)
    assert gradient_extent(net, "context") == list(fields.context)
    assert gradient_extent(net, "head") == list(fields.logits)


@pytest.mark.parametrize(
    ("down", "depth", "expected"),
    [("max", 4, 140), ("pixel_unshuffle", 4, 140), ("strided", 4, 155), ("max_blur", 4, 170), ("max", 0, 5)],
)
def test_the_field_of_the_original_network_s_bottleneck(down: str, depth: int, expected: int):
    assert receptive_fields({"down": down, "depth": depth}).encoder[-1] == (expected, expected)


@pytest.mark.parametrize("name", ["spp", "ppm", "aspp"])
def test_the_field_of_a_pyramid_is_unlimited(name: str):
    assert receptive_fields({"depth": 1, "context": name}).context == (math.inf, math.inf)


@pytest.mark.parametrize("spatial_dims", [1, 2])
@pytest.mark.parametrize("name", DOWN)
def test_every_down_operator_has_a_field_of_at_least_its_window(name: str, spatial_dims: int):
    fields = receptive_fields({"depth": 1, "down": name, "spatial_dims": spatial_dims})
    assert all(6 <= n < 20 for n in fields.downs[0])


@pytest.mark.parametrize("name", UP)
def test_every_up_operator_has_a_field_of_at_least_its_input_s(name: str):
    fields = receptive_fields({"depth": 1, "up": name})
    assert all(14 <= n < 40 for n in fields.ups[0])
    assert all(larger > smaller for larger, smaller in zip(fields.decoder[0], fields.ups[0], strict=True))


@pytest.mark.parametrize("name", CONTEXT)
def test_a_context_never_narrows_the_field(name: str):
    fields = receptive_fields({"depth": 1, "context": name})
    assert all(larger >= smaller for larger, smaller in zip(fields.context, fields.encoder[-1], strict=True))


@pytest.mark.parametrize("table, scale, name", [(DOWN, 0.5, "downs.0"), (UP, 2, "ups.0"), (CONTEXT, 1, "context")])
def test_an_operator_that_ignores_its_input_has_no_field(
    table: Registry, scale: float, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Its field would be empty, and everything behind it would be reported as unlimited."""

    class Constant(nn.Module):
        def __init__(self, **arguments: Any):
            super().__init__()
            self.channels = arguments.get("out_channels", arguments.get("channels"))

        def forward(self, x: Tensor, *skip: Tensor) -> Tensor:
            return x.new_zeros(len(x), self.channels, *(int(n * scale) for n in x.shape[2:]))

    monkeypatch.setitem(table._classes, "constant", Constant)
    with pytest.raises(UserError, match=rf"^{name}: its output does not depend on its input, so it has no receptive"):
        receptive_fields({"depth": 1, table.kind: "constant"})
