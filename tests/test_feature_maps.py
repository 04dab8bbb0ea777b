"""Feature maps: inputs and outputs of operators, and their images."""

import numpy as np
import pytest
import torch

from unet import UNet
from unet.analysis.feature_maps import MIN_SIDE, OperatorIO, draw_operator_io, feature_maps, select_channels

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")


def test_every_operator_is_captured_once_and_the_network_is_unchanged():
    net = UNet(width=4, depth=2, down=["max", "strided"], up="sapa", context="spp").train()
    records = feature_maps(net, torch.randn(2, 3, 16, 24))
    assert [record.title for record in records] == [
        "downs.0 max", "downs.1 strided", "context spp", "ups.1 sapa", "ups.0 sapa"
    ]  # fmt: skip
    shapes = [(tuple(record.input.shape), tuple(record.output.shape)) for record in records]
    assert shapes[0] == ((4, 16, 24), (4, 8, 12)) and shapes[-1] == ((8, 8, 12), (4, 16, 24))
    torch.testing.assert_close(records[0].output, net.downs[0](records[0].input[None])[0])
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("size", [(40,), (20, 30), (8, 16, 16)], ids=str)
def test_maps_of_any_dimension_are_drawn(size: tuple[int, ...]):
    net = UNet(in_channels=1, width=4, depth=1, spatial_dims=len(size), stride=[[*[1] * (len(size) - 1), 2]])
    for record in feature_maps(net, torch.randn(1, 1, *size)):
        image = draw_operator_io(record, count=3)
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert image.shape[1] >= 3 * MIN_SIDE and len(np.unique(image)) > 10


def test_constant_and_linearly_dependent_channels_are_selected_last():
    ramp = torch.arange(16.0).view(4, 4)
    maps = torch.stack([torch.full((4, 4), 99.0), ramp, torch.eye(4), 5 - 0.9 * ramp])
    assert select_channels(maps, 2) == [1, 2]
    assert sorted(select_channels(maps, 9)) == [0, 1, 2, 3]


def test_a_constant_map_is_drawn_in_one_colour():
    flat = OperatorIO("downs.0", "max", torch.ones(1, 8, 8), torch.ones(1, 4, 4))
    colors = np.unique(draw_operator_io(flat, 1).reshape(-1, 3), axis=0)
    assert len(colors) == 2
