"""Sizes, padding and counting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unet import DOWN, UP, UNet
from unet.errors import UserError
from unet.network.geometry import (
    count_flops,
    count_parameters,
    crop,
    level_sizes,
    pad,
    padding_to_multiple,
    same_padding,
)

axes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=3)
"""(size, multiple) for each of one to three axes."""


@given(axes)
def test_padding_to_a_multiple_is_the_least_that_divides_and_is_shared_evenly(axes: list[tuple[int, int]]):
    size, multiple = zip(*axes, strict=True)
    for n, m, (before, after) in zip(size, multiple, padding_to_multiple(size, multiple), strict=True):
        assert (n + before + after) % m == 0
        assert 0 <= before + after < m
        assert after - before in (0, 1)


@given(axes)
def test_crop_undoes_pad(axes: list[tuple[int, int]]):
    size, multiple = zip(*axes, strict=True)
    x = torch.randn(2, 3, *size)
    padding = padding_to_multiple(size, multiple)
    padded = pad(x, padding)
    assert all(n % m == 0 for n, m in zip(padded.shape[2:], multiple, strict=True))
    assert torch.equal(crop(padded, padding, size), x)


def test_pad_repeats_the_border_of_each_axis_by_its_own_amounts():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    expected = torch.tensor([[1.0, 2.0, 2.0, 2.0], [3.0, 4.0, 4.0, 4.0], [3.0, 4.0, 4.0, 4.0]])[None, None]
    assert torch.equal(pad(x, [(0, 1), (0, 2)]), expected)


def test_crop_passes_the_gradient_to_the_window_alone():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    crop(x, [(1, 1), (0, 2)], (2, 2)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad[0, 0].nonzero(), torch.tensor([[1, 0], [1, 1], [2, 0], [2, 1]]))


@given(kernel=st.integers(1, 9), stride=st.integers(1, 5), samples=st.integers(1, 20))
def test_same_padding_divides_the_size_by_the_stride_exactly(kernel: int, stride: int, samples: int):
    if kernel < stride:
        return
    if stride == 1 and kernel % 2 == 0:
        with pytest.raises(UserError, match="odd kernel_size"):
            same_padding(kernel, (stride,))
        return
    (padding,) = same_padding(kernel, (stride,))
    x = torch.zeros(1, 1, stride * samples)
    assert nn.functional.conv1d(x, torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[2] == samples


@pytest.mark.parametrize(
    ("size", "strides", "expected"),
    [
        ((32, 32), [(2, 2)] * 2, [(32, 32), (16, 16), (8, 8)]),
        ((33, 47), [(2, 2)] * 2, [(36, 48), (18, 24), (9, 12)]),  # once padded
        ((9, 16, 17), [(1, 2, 2), (3, 2, 2)], [(9, 16, 20), (9, 8, 10), (3, 4, 5)]),
        ((7,), [], [(7,)]),
    ],
)
def test_level_sizes_by_hand(size: tuple[int, ...], strides: list, expected: list):
    assert level_sizes(size, strides) == expected


def test_only_trainable_parameters_are_counted():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))  # the norm's running statistics are no parameters
    assert count_parameters(model) == 5 * 3 * 9 + 5 + 5 + 5
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == 5 * 3 * 9 + 5 + 5


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_flops_of_one_convolution_are_two_per_multiply_add(spatial_dims: int):
    conv = getattr(nn, f"Conv{spatial_dims}d")(3, 5, 3, padding=1)
    multiply_adds = 2 * 5 * 3 * 3**spatial_dims * 8**spatial_dims  # batch 2, every output sample
    assert count_flops(conv, (2, 3, *(8,) * spatial_dims)) == 2 * multiply_adds


@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("up", UP)
def test_flops_of_a_network_are_those_of_a_real_forward_pass(down: str, up: str):
    model = UNet(width=4, depth=2, down=down, up=up).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, 33, 40))
    assert count_flops(model, (1, 3, 33, 40)) == counter.get_total_flops() > 0


def test_counting_flops_leaves_the_module_alone():
    model = UNet(width=4, depth=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(model, (2, 3, 32, 32))
    assert model.training
    assert all(parameter.device.type == "cpu" and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
