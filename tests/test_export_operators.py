"""Every operator, in every dimension it serves, gives in onnxruntime what it gives in torch, at odd sizes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unet import CONTEXT, DOWN, UP, UNet
from unet.analysis.single_operator import SHARED, STRIDE, build_operator, supported_dims
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
SMALLER = {"carafe", "sapa"}
"""With 5 neighbours an axis, as they come, these make a graph of hundreds of slices in 3-D, written in minutes."""


class SideBySide(nn.Module):
    """All operators of a table on one image, which is padded as the network pads it. (B, C, *S) -> (B, N, C, *S')."""

    def __init__(self, table: Registry, dims: int):
        super().__init__()
        self.table, self.stride = table, (STRIDE,) * dims
        self.names = [name for name in table if dims in supported_dims(table, name)]
        self.operators = nn.ModuleList(self.built(name, dims) for name in self.names)
        self.eval()

    def built(self, name: str, dims: int) -> nn.Module:
        if dims < 3 or name not in SMALLER:
            return build_operator(self.table, name, dims, CHANNELS)
        width = {"in_channels": 2 * CHANNELS, "out_channels": CHANNELS}
        spec = {"name": name, "kernel_size": 3}
        return self.table.build(spec, SHARED, **width, spatial_dims=dims, stride=self.stride)

    def forward(self, image: Tensor) -> Tensor:
        fine = pad(image, padding_to_multiple(image.shape[2:], self.stride))
        coarse = split_windows(fine, self.stride).flatten(1, 2)[:, : 2 * CHANNELS]  # a part of every window
        given = (coarse, fine) if self.table is UP else (fine,)
        return torch.stack([operator(*given) for operator in self.operators], dim=1)


def test_no_operator_is_left_out():
    for table in (DOWN, UP, CONTEXT):
        assert {name for dims in (1, 2, 3) for name in SideBySide(table, dims).names} == set(table)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("table", [DOWN, UP, CONTEXT], ids=lambda table: table.kind)
def test_onnxruntime_gives_every_operator_s_numbers_at_odd_sizes(table: Registry, dims: int, tmp_path: Path):
    net, form, path = SideBySide(table, dims), FORMATS["onnx"], tmp_path / "model.onnx"
    form.write(net, torch.randn(2, CHANNELS, *(10, 12, 14)[:dims]), "stacked", path)
    program = form.open(path)
    for batch, size in zip((1, 3, 2, 1), [*odd_sizes(net.stride), net.stride], strict=True):
        image = torch.randn(batch, CHANNELS, *size)
        found, expected = program(image), net(image).detach()
        for place, name in enumerate(net.names):
            torch.testing.assert_close(
                found[:, place], expected[:, place], atol=1e-5, rtol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
            )


@pytest.mark.parametrize("down, up", [("strided", "linear"), ("blur", "nearest"), ("max", "unpool")])
def test_onnxruntime_gives_the_logits_of_uneven_strides(down: str, up: str, tmp_path: Path):
    net = UNet(width=4, depth=2, down=down, up=up, stride=[[1, 2], 3]).eval()
    form, path = FORMATS["onnx"], tmp_path / "model.onnx"
    form.write(net, torch.randn(2, 3, 48, 32), "logits", path)
    program = form.open(path)
    for batch, size in zip((1, 3, 2, 1), [*odd_sizes(net.total_stride), net.total_stride], strict=True):
        image = torch.randn(batch, 3, *size)
        torch.testing.assert_close(program(image), net(image).detach(), atol=1e-5, rtol=1e-4)
