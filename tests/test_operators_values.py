"""Values of the newer operators, by hand and against slow reference loops."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARED, context, down, fine_size, up
from torch import Tensor, nn
from torch.nn import functional as F

from unet import CONTEXT, UNet
from unet.errors import UserError
from unet.network.ops.interpolation import ResizeConv
from unet.network.ops.wavelet import haar, inverse_haar
from unet.network.ops.windows import join_windows, split_windows

STRIDES = [(2,), (3,), (2, 2), (3, 2), (1, 2), (2, 2, 2), (1, 2, 2)]


def windows_by_loop(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return the windows (B, C, P, *S), computed in a loop."""
    coarse = tuple(n // r for n, r in zip(x.shape[2:], stride, strict=True))
    result = x.new_empty(*x.shape[:2], math.prod(stride), *coarse)
    for place in product(*map(range, coarse)):
        window = x[(..., *(slice(i * r, (i + 1) * r) for i, r in zip(place, stride, strict=True)))]
        result[(..., *place)] = window.flatten(2)
    return result


# Windows and subpixels ------------------------------------------------------------------------------------------------


@given(stride=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple), coarse=st.integers(1, 3))
@settings(deadline=None)
def test_windows_are_split_and_joined_without_loss(stride: tuple[int, ...], coarse: int):
    x = torch.randn(2, 3, *(coarse * r for r in stride))
    assert torch.equal(split_windows(x, stride), windows_by_loop(x, stride))
    assert torch.equal(join_windows(split_windows(x, stride), stride), x)


def test_pixel_unshuffle_is_a_strided_convolution_with_the_strides_kernel():
    operator = down("pixel_unshuffle", 3, norm="none").eval()
    weight, bias = operator.get_parameter("block.0.weight"), operator.get_parameter("block.0.bias")
    x = torch.randn(2, 3, 6, 8)
    expected = F.conv2d(x, weight.view(3, 3, 2, 2), bias, stride=2).relu()
    torch.testing.assert_close(operator(x), expected)


@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_pixel_shuffle_starts_as_nearest_resizing_of_a_convolution(stride: tuple[int, ...]):
    operator = up("pixel_shuffle", 3, 4, stride)
    weight, bias = (operator.get_parameter(f"conv.{name}") for name in ("weight", "bias"))
    places = math.prod(stride)
    x = torch.randn(2, 3, *(5, 4, 3)[: len(stride)])
    convolve = getattr(F, f"conv{len(stride)}d")
    expected = convolve(x, weight[::places], bias[::places], padding=1)
    for axis, r in enumerate(stride, start=2):
        expected = expected.repeat_interleave(r, dim=axis)
    torch.testing.assert_close(operator(x, None), expected)
    assert not torch.equal(weight[0], weight[places]), "only the places of one channel start alike"


# Wavelet --------------------------------------------------------------------------------------------------------------


def test_the_haar_bands_of_four_numbers():
    a, b, c, d = 7.0, 1.0, 3.0, 5.0
    bands = haar(torch.tensor([[a, b], [c, d]])[None, None], [2, 3]).flatten()
    mean, vertical, horizontal, diagonal = a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d
    torch.testing.assert_close(bands, torch.tensor([mean, vertical, horizontal, diagonal]) / 2)


@given(axes=st.sets(st.integers(2, 4), min_size=1), channels=st.integers(1, 3))
@settings(deadline=None)
def test_the_haar_transform_loses_nothing(axes: set[int], channels: int):
    x = torch.randn(2, channels, 4, 2, 6, dtype=torch.float64)
    bands = haar(x, sorted(axes))
    torch.testing.assert_close(inverse_haar(bands, sorted(axes)), x)
    assert bands.square().sum().item() == pytest.approx(x.square().sum().item()), "orthonormal: the energy stays"


# Blur -----------------------------------------------------------------------------------------------------------------


def test_blur_by_hand():
    """[1, 3, 3, 1] / 8 on 0 8 | 16 0 | 8 8, the borders repeated."""
    x = torch.tensor([0.0, 8.0, 16.0, 0.0, 8.0, 8.0])[None, None]
    expected = [(0 + 0 + 24 + 16) / 8, (8 + 48 + 0 + 8) / 8, (0 + 24 + 24 + 8) / 8]
    torch.testing.assert_close(down("blur", stride=(2,))(x).flatten(), torch.tensor(expected))


def test_max_blur_by_hand():
    """Running maxima of two (the border repeated on either side), then [1, 2, 1] / 4 on every second one."""
    x = torch.tensor([4.0, 0.0, 8.0, 2.0])[None, None]
    # maxima that begin at -1 .. 3: 4 4 8 8 2
    expected = [(4 + 8 + 8) / 4, (8 + 16 + 2) / 4]
    torch.testing.assert_close(down("max_blur", stride=(2,))(x).flatten(), torch.tensor(expected))


@pytest.mark.parametrize("stride", [(2,), (3,), (2, 2), (3, 2), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("name", ["blur", "max_blur"])
def test_a_blur_keeps_a_constant_and_has_no_weights(name: str, stride: tuple[int, ...]):
    operator = down(name, 2, stride)
    x = torch.full((1, 2, *(6,) * len(stride)), 3.5)
    y = operator(x)
    torch.testing.assert_close(y, torch.full_like(y, 3.5))
    assert not operator.state_dict()


def test_an_axis_of_stride_one_is_not_blurred():
    x = torch.randn(1, 1, 5, 8)
    rows = torch.stack([down("blur", stride=(2,))(row) for row in x.unbind(2)], dim=2)
    torch.testing.assert_close(down("blur", stride=(1, 2))(x), rows)


def test_strided_blur_is_a_convolution_block_and_then_a_blur():
    operator = down("strided_blur", 3).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(operator(x), down("blur", 3)(operator.get_submodule("block")(x)))


# Weighted pooling -----------------------------------------------------------------------------------------------------


def test_soft_pooling_by_hand():
    """Weights e^0 : e^ln 3 = 1 : 3."""
    x = torch.tensor([0.0, math.log(3)])[None, None]
    assert down("soft", stride=(2,))(x).item() == pytest.approx(0.75 * math.log(3))


@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_the_generalized_mean_runs_from_the_mean_to_the_maximum(stride: tuple[int, ...]):
    x = torch.rand(2, 3, *fine_size((3, 2, 2)[: len(stride)], stride)) + 0.1
    torch.testing.assert_close(down({"name": "gem", "p": 1}, 3, stride)(x), down("avg", 3, stride)(x))
    torch.testing.assert_close(
        down({"name": "gem", "p": 500}, 3, stride)(x), down("max", 3, stride)(x), rtol=0.01, atol=0
    )


def test_the_generalized_mean_by_hand():
    x = torch.tensor([1.0, 2.0])[None, None]
    assert down("gem", stride=(2,))(x).item() == pytest.approx(((1 + 8) / 2) ** (1 / 3))
    assert down("gem", stride=(2,))(torch.tensor([[[-5.0, 2.0]]])).item() == pytest.approx((8 / 2) ** (1 / 3))


def test_the_generalized_mean_is_finite_for_large_and_zero_values():
    x = torch.tensor([1e30, 1e30, 0.0, 0.0], requires_grad=True)
    y = down("gem", stride=(2,))(x[None, None])
    y.sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()


def test_mixed_pooling_is_half_and_half_at_first():
    operator, x = down("mixed", 3), torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(operator(x), (down("max", 3)(x) + down("avg", 3)(x)) / 2)
    nn.init.constant_(operator.get_parameter("share"), 100)
    torch.testing.assert_close(operator(x), down("max", 3)(x))


def test_local_importance_pooling_equals_a_weighted_average():
    operator, x = down("lip", 3).eval(), torch.randn(2, 3, 4, 6)
    weights = windows_by_loop((12 * operator.get_submodule("importance")(x).sigmoid()).exp(), (2, 2))
    expected = (windows_by_loop(x, (2, 2)) * weights).sum(2) / weights.sum(2)
    torch.testing.assert_close(operator(x), expected)
    nn.init.zeros_(operator.get_parameter("importance.1.weight"))
    torch.testing.assert_close(operator(x), down("avg", 3)(x), msg="evenly important: the mean")


# Exact rewrites -------------------------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(["nearest", "linear"]),
    kernel_size=st.sampled_from([1, 3, 5]),
    stride=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
)
@settings(deadline=None, max_examples=40)
def test_interpolating_operators_equal_a_resize_and_a_convolution_in_values_and_gradients(
    name: str, kernel_size: int, stride: tuple[int, ...]
):
    operator = up({"name": name, "kernel_size": kernel_size}, 3, 2, stride).double()
    assert isinstance(operator, ResizeConv)
    coarse = (4, 3, 2)[: len(stride)]
    x = torch.randn(2, 3, *coarse, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, 2, *fine_size(coarse, stride), dtype=torch.float64)
    inputs = [x, *operator.parameters()]
    output, expected = operator(x, None), operator.conv(operator.resize(x))
    torch.testing.assert_close(output, expected)
    gradients = [torch.autograd.grad((values * seed).sum(), inputs) for values in (output, expected)]
    torch.testing.assert_close(*gradients)


# Interpolation and reassembly -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel_size", [None, 3, 5])
@pytest.mark.parametrize("bias_is_trained", [True, False])
def test_transposed_equals_torchs_module_in_values_and_gradients(stride, kernel_size, bias_is_trained: bool):
    operator = up(
        {"name": "transposed", "kernel_size": kernel_size}, in_channels=3, out_channels=2, stride=stride
    ).double()
    operator.conv.bias.requires_grad_(bias_is_trained)
    x = torch.randn(2, 3, *[4] * len(stride), dtype=torch.float64, requires_grad=True)
    trained = [x, *(parameter for parameter in operator.parameters() if parameter.requires_grad)]
    outputs = operator(x, None), operator.conv(x)
    torch.testing.assert_close(*outputs)
    cotangent = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(output, trained, cotangent) for output in outputs]
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("skip", ["concat", "add", "none"])
@pytest.mark.parametrize("up", ["transposed", "nearest", "linear"])
def test_a_networks_gradients_equal_those_of_plain_operations(skip: str, up: str, monkeypatch: pytest.MonkeyPatch):
    """While it is compiled, the network uses torch's own operations, without copies of gradients."""
    network = UNet(in_channels=2, num_classes=3, width=4, depth=2, up=up, skip=skip).double()
    image = torch.randn(2, 2, 35, 32, dtype=torch.float64)
    gradients = []
    for is_plain in (False, True):
        monkeypatch.setattr("torch.compiler.is_compiling", lambda is_plain=is_plain: is_plain)
        gradients.append(torch.autograd.grad(network(image).square().mean(), list(network.parameters())))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain)


def test_bicubic_uses_the_cubic_of_keys():
    """A unit step between columns: at a quarter the weights of Keys' cubic (a = -3/4) add up to what overshoots."""

    def cubic(t: float, a: float = -0.75) -> float:
        t = abs(t)
        inner = (a + 2) * t**3 - (a + 3) * t**2 + 1
        outer = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        return inner if t <= 1 else outer if t < 2 else 0.0

    operator = up("bicubic")
    nn.init.zeros_(operator.get_parameter("conv.weight"))
    operator.get_parameter("conv.weight").data[0, 0, 1, 1] = 1
    nn.init.zeros_(operator.get_parameter("conv.bias"))
    x = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expand(1, 1, 6, 6).contiguous()
    row = operator(x, None)[0, 0, 6]
    for place, t in ((5, 2.25), (6, 2.75), (7, 3.25)):  # fine sample i lies at (i + 1/2) / 2 - 1/2
        assert row[place].item() == pytest.approx(sum(cubic(t - i) for i in range(3, 6)), abs=1e-5)
    assert row.max() > 1 and row.min() < 0, "it overshoots beside the step"


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_carafe_equals_a_loop(kernel_size: int):
    operator = up({"name": "carafe", "kernel_size": kernel_size}, 6, 4).eval()
    x = torch.randn(2, 6, 4, 5)
    values, weights = operator.get_submodule("mix")(x), operator.get_submodule("predict")(x)
    half_width = kernel_size // 2
    padded = F.pad(values, [half_width] * 4, mode="replicate")
    y = operator(x, None)
    for i, j in product(range(8), range(10)):
        near = padded[:, :, i // 2 : i // 2 + kernel_size, j // 2 : j // 2 + kernel_size].flatten(2)
        kernel = weights[:, :, (i % 2) * 2 + j % 2, i // 2, j // 2]
        torch.testing.assert_close(y[:, :, i, j], torch.einsum("bck,bk->bc", near, kernel))
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


def test_sapa_equals_a_loop():
    operator = up({"name": "sapa", "kernel_size": 3}, 6, 4).eval()
    x, skip = torch.randn(2, 6, 4, 5), torch.randn(2, 4, 8, 10)
    values, keys = (F.pad(operator.get_submodule(part)(x), [1] * 4, mode="replicate") for part in ("mix", "key"))
    queries, y = operator.get_submodule("query")(skip), operator(x, skip)
    for i, j in product(range(8), range(10)):
        near = (..., slice(i // 2, i // 2 + 3), slice(j // 2, j // 2 + 3))
        weights = torch.einsum("bek,be->bk", keys[near].flatten(2), queries[:, :, i, j]).softmax(1)
        torch.testing.assert_close(y[:, :, i, j], torch.einsum("bck,bk->bc", values[near].flatten(2), weights))


@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_dysample_starts_at_the_places_of_linear_interpolation(stride: tuple[int, ...]):
    operator = up("dysample", 6, 4, stride)
    nn.init.zeros_(operator.get_parameter("offset.weight"))
    x = torch.randn(2, 6, *(5, 4, 3)[: len(stride)])
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(stride)]
    values = operator.get_submodule("mix")(x)
    expected = F.interpolate(values, scale_factor=[float(r) for r in stride], mode=mode, align_corners=False)
    torch.testing.assert_close(operator(x, None), expected)


def test_an_offset_moves_dysamples_places_by_quarters_of_a_coarse_sample():
    operator = up({"name": "dysample", "groups": 1}, 1, 1, (2, 2))
    nn.init.ones_(operator.get_parameter("mix.weight"))
    nn.init.zeros_(operator.get_parameter("mix.bias"))
    nn.init.zeros_(operator.get_parameter("offset.weight"))
    operator.get_parameter("offset.bias").data = torch.tensor([0.0] * 4 + [1.0] * 4)  # every place of the last axis
    x = torch.arange(8.0).expand(1, 1, 4, 8).contiguous()
    row = operator(x, None)[0, 0, 3]
    torch.testing.assert_close(row[2:-2], (torch.arange(16.0) / 2 - 0.25 + 0.25)[2:-2])


# Context --------------------------------------------------------------------------------------------------------------


def test_aspp_depends_on_the_pixels_at_its_rates():
    operator = CONTEXT.build({"name": "aspp", "rates": [2, 5]}, SHARED | {"act": "elu"}, channels=8, spatial_dims=1)
    operator.eval()
    nn.init.zeros_(operator.get_parameter("image.weight"))
    x = torch.randn(1, 8, 31, requires_grad=True)
    operator(x)[0, :, 15].sum().backward()
    assert x.grad is not None
    offsets = x.grad.abs().sum((0, 1)).nonzero().flatten() - 15
    assert offsets.tolist() == [-5, -2, 0, 2, 5]


def test_aspp_with_group_norm_can_be_trained_on_a_single_pixel():
    operator = CONTEXT.build("aspp", {"norm": "group", "act": "relu"}, channels=20, spatial_dims=2).train()
    assert operator(torch.randn(1, 20, 1, 1)).isfinite().all()


@pytest.mark.parametrize(
    ("build", "name", "option", "values", "expected"),
    [
        (down, "gem", "p", [0.5, -1, "3", math.nan], "down=gem: p must be a number of at least 1"),
        (up, "dysample", "groups", [0, 1.5, "4"], "up=dysample: groups must be an integer of at least 1"),
        (context, "spp", "bins", [[], [0], [1, -2], [1.5], 3, "124"], "context: bins must be positive integers"),
        (context, "aspp", "rates", [[], [0], 3, "24"], "context: rates must be positive integers"),
    ],
)
def test_an_invalid_option_is_refused(build, name: str, option: str, values: list, expected: str):
    for value in values:
        with pytest.raises(UserError, match=expected):
            build({"name": name, option: value})
