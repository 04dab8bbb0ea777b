"""Every operator has the same outputs in onnxruntime and in torch, in every dimension it supports, at odd sizes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unet import CONTEXT, DOWN, UP, UNet
from unet.analysis.single_operator import STRIDE, build_operator, supported_dims
from unet.export.check import odd_sizes
from unet.export.formats import FORMATS
from unet.network.geometry import pad, padding_to_multiple
from unet.network.ops.windows import split_windows
from unet.network.registry import Registry

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning"),  # small on purpose
]
CHANNELS = 4


class AllOperators(nn.Module):
    """All operators of a registry on one image, padded as in the network. (B, C, *S) -> (B, N, C, *S')."""

    def __init__(self, table: Registry, dims: int):
        super().__init__()
        self.table, self.stride = table, (STRIDE,) * dims
        self.names = [name for name in table if dims in supported_dims(table, name)]
        self.operators = nn.ModuleList(build_operator(table, name, dims, CHANNELS) for name in self.names)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        fine = pad(image, padding_to_multiple(image.shape[2:], self.stride))
        coarse = split_windows(fine, self.stride).flatten(1, 2)[:, : 2 * CHANNELS]  # a part of every window
        args = (coarse, fine) if self.table is UP else (fine,)
        return torch.stack([operator(*args) for operator in self.operators], dim=1)


def test_every_operator_is_tested():
    for table in (DOWN, UP, CONTEXT):
        assert {name for dims in (1, 2, 3) for name in AllOperators(table, dims).names} == set(table)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("table", [DOWN, UP, CONTEXT], ids=lambda table: table.kind)
def test_every_operator_has_the_same_outputs_in_onnxruntime(table: Registry, dims: int, tmp_path: Path):
    net, form, path = AllOperators(table, dims), FORMATS["onnx"], tmp_path / "model.onnx"
    form.write(net, torch.randn(2, CHANNELS, *(10, 12, 14)[:dims]), "outputs", path)
    program = form.open(path)
    for batch, size in zip((1, 3, 2, 1), [*odd_sizes(net.stride), net.stride], strict=True):
        image = torch.randn(batch, CHANNELS, *size)
        output, expected = program(image), net(image).detach()
        for index, name in enumerate(net.names):
            difference = (output[:, index] - expected[:, index]).abs()
            assert (difference <= 1e-5 + 1e-4 * expected[:, index].abs()).all(), (name, size, difference.max())


@pytest.mark.parametrize("down, up", [("strided", "linear"), ("blur", "nearest"), ("max", "unpool")])
def test_a_network_with_uneven_strides_has_the_same_logits_in_onnxruntime(down: str, up: str, tmp_path: Path):
    net = UNet(width=4, depth=2, down=down, up=up, stride=[[1, 2], 3]).eval()
    form, path = FORMATS["onnx"], tmp_path / "model.onnx"
    form.write(net, torch.randn(2, 3, 48, 32), "logits", path)
    program = form.open(path)
    for batch, size in zip((1, 3, 2, 1), [*odd_sizes(net.total_stride), net.total_stride], strict=True):
        image = torch.randn(batch, 3, *size)
        torch.testing.assert_close(program(image), net(image).detach(), atol=1e-5, rtol=1e-4)
