"""Tests of every operator in ``DOWN``, ``UP`` and ``CONTEXT``, and values of the classical ones by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import context, down, fine_size, up
from torch import Tensor, nn
from torch.nn import functional as F

from unet import CONTEXT, DOWN, UP
from unet.errors import UserError
from unet.network.ops.context import bin_means
from unet.network.ops.reassembly import CarafeUp, DySampleUp
from unet.network.ops.subpixel import PixelUnshuffleDown
from unet.network.ops.wavelet import HaarDown, HaarUp

COARSE = (4, 3, 5)
"""Coarse sizes of the shape tests, different for every axis, so that swapped axes are detected."""
STRIDES = [(2,), (3,), (2, 2), (3, 3), (1, 2), (3, 2), (1, 1), (2, 2, 2), (1, 2, 2)]
UNSUPPORTED = {
    "bicubic": lambda stride: len(stride) != 2,
    "haar": lambda stride: max(stride) > 2,
}
"""Whether an operator does not support a stride (and its number of axes)."""


def supports(name: str, stride: tuple[int, ...]) -> bool:
    return not UNSUPPORTED.get(name, lambda stride: False)(stride)


CASES = [(kind, name, stride) for kind, table in (("down", DOWN), ("up", UP)) for name in table for stride in STRIDES]
SUPPORTED = [case for case in CASES if supports(*case[1:])]


def distinct(*shape: int) -> Tensor:
    """Distinct values in random order: no ties."""
    return torch.randperm(math.prod(shape)).float().view(shape)


def check_gradients(module: nn.Module, output: Tensor, *inputs: Tensor) -> None:
    """A random weighting of the output sends a finite gradient, not all zero, to every input and parameter."""
    (output * torch.randn_like(output)).sum().backward()
    learned = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for name, tensor in [*learned, *((f"input {i}", x) for i, x in enumerate(inputs))]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all() and tensor.grad.any(), name


def set_to_identity(module: nn.Module) -> nn.Module:
    """Set every convolution of a single channel to the identity."""
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)):
        nn.init.zeros_(conv.weight)
        conv.weight.data[(0, 0, *(k // 2 for k in conv.kernel_size))] = 1
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return module


# All operators -------------------------------------------------------------------------------------------------------


def build(kind: str, name: str, stride: tuple[int, ...], cin: int, cout: int) -> nn.Module:
    return down(name, cout, stride) if kind == "down" else up(name, cin, cout, stride)


@pytest.mark.parametrize(("kind", "name", "stride"), SUPPORTED, ids=str)
def test_every_axis_is_divided_or_multiplied_by_its_stride(kind: str, name: str, stride: tuple[int, ...]):
    for cin, cout in ((8, 4), (4, 4), (3, 5)):
        operator = build(kind, name, stride, cin, cout).eval()
        for coarse in (COARSE[: len(stride)], (1,) * len(stride), (6,) * len(stride)):
            for batch in (1, 2):
                fine = torch.randn(batch, cout, *fine_size(coarse, stride))
                if kind == "down":
                    assert operator(fine).shape == (batch, cout, *coarse)
                else:
                    assert operator(torch.randn(batch, cin, *coarse), fine).shape == fine.shape


@pytest.mark.parametrize(("kind", "name", "stride"), [case for case in CASES if case not in SUPPORTED], ids=str)
def test_an_unsupported_stride_is_refused(kind: str, name: str, stride: tuple[int, ...]):
    with pytest.raises(UserError, match=f"model.{kind}={name}"):
        build(kind, name, stride, 1, 1)


@pytest.mark.parametrize(("kind", "name", "stride"), SUPPORTED, ids=str)
def test_gradients_reach_every_parameter_and_the_input(kind: str, name: str, stride: tuple[int, ...]):
    operator, coarse = build(kind, name, stride, 8, 4).train(), COARSE[: len(stride)]
    fine = torch.randn(2, 4, *fine_size(coarse, stride), requires_grad=kind == "down")
    if max(stride) == 1 and name in ("gem", "mixed", "lip"):
        operator.requires_grad_(False)  # a window of one sample leaves nothing to weigh
    if kind == "down":
        check_gradients(operator, operator(fine), fine)
    else:
        x = torch.randn(2, 8, *coarse, requires_grad=True)
        check_gradients(operator, operator(x, fine), x)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", CONTEXT)
def test_context_keeps_the_shape_and_passes_gradients_to_every_parameter(name: str, spatial_dims: int):
    for channels in (1, 6, 7):
        operator = context(name, channels, spatial_dims).eval()
        for size in (COARSE[:spatial_dims], (1,) * spatial_dims, (9,) * spatial_dims):
            x = torch.randn(2, channels, *size)
            assert operator(x).shape == x.shape
    operator, x = context(name, 6, spatial_dims).train(), torch.randn(2, 6, *COARSE[:spatial_dims], requires_grad=True)
    check_gradients(operator, operator(x), x)


def all_operators() -> list:
    """Return a constructor and inputs for every operator, on 2-D data with stride 2."""
    generator = torch.Generator().manual_seed(0)
    x, fine = torch.randn(2, 6, 4, 5, generator=generator), torch.randn(2, 6, 8, 10, generator=generator)
    return [
        *(pytest.param(lambda n=name: down(n, 6), (fine,), id=f"down-{name}") for name in DOWN),
        *(pytest.param(lambda n=name: up(n, 6, 6), (x, fine), id=f"up-{name}") for name in UP),
        *(pytest.param(lambda n=name: context(n, 6), (x,), id=f"context-{name}") for name in CONTEXT),
    ]


@pytest.mark.parametrize(("make", "inputs"), all_operators())
def test_evaluation_is_deterministic_and_changes_neither_inputs_nor_state(make, inputs: tuple[Tensor, ...]):
    operator = make().eval()
    state = {key: value.clone() for key, value in operator.state_dict().items()}
    copies = [x.clone() for x in inputs]
    first = operator(*inputs)
    assert torch.equal(first, operator(*inputs))
    assert all(torch.equal(x, before) for x, before in zip(inputs, copies, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in operator.state_dict().items())


@pytest.mark.parametrize(("make", "inputs"), all_operators())
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(make, inputs: tuple[Tensor, ...]):
    operator = make().eval()
    alone = operator(*(x[1:] for x in inputs))
    torch.testing.assert_close(operator(*inputs)[1:], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("make", "inputs"), all_operators())
def test_the_dtype_is_preserved(make, inputs: tuple[Tensor, ...], dtype: torch.dtype):
    output = make().eval().to(dtype)(*(x.to(dtype) for x in inputs))
    assert output.dtype == dtype


@pytest.mark.parametrize(("make", "inputs"), all_operators())
def test_channels_last_gives_the_same_values(make, inputs: tuple[Tensor, ...]):
    operator = make().eval()
    permuted = operator(*(x.to(memory_format=torch.channels_last) for x in inputs))
    torch.testing.assert_close(permuted, operator(*inputs))


# Down, by hand -------------------------------------------------------------------------------------------------------


def test_max_and_avg_by_hand():
    x = torch.tensor([[1.0, 2.0, 0.0, -1.0], [4.0, 3.0, -2.0, -3.0]])[None, None]
    assert torch.equal(down("max")(x).flatten(), torch.tensor([4.0, 0.0]))
    assert torch.equal(down("avg")(x).flatten(), torch.tensor([2.5, -1.5]))


@pytest.mark.parametrize(("kernel_size", "padding"), [(3, 1), (4, 1), (5, 2), (6, 2)])
def test_wider_windows_agree_with_torch(kernel_size: int, padding: int):
    x = torch.randn(2, 3, 8, 12) - 5  # all negative: padding with zeros instead of -inf would be seen
    option = {"kernel_size": kernel_size}
    expected = F.max_pool2d(x, kernel_size, 2, padding)
    assert torch.equal(down({"name": "max"} | option, 3)(x), expected)
    expected = F.avg_pool2d(x, kernel_size, 2, padding, count_include_pad=False)
    assert torch.equal(down({"name": "avg"} | option, 3)(x), expected)


@pytest.mark.parametrize("name", ["max", "avg", "strided"])
def test_a_larger_kernel_supports_different_strides_per_axis(name: str):
    operator = down({"name": name, "kernel_size": 3}, stride=(1, 2, 3)).eval()
    assert operator(torch.zeros(1, 1, 5, 10, 15)).shape[2:] == (5, 5, 5)


def test_strided_is_a_strided_convolution_with_norm_and_act():
    operator = down({"name": "strided", "norm": "none", "act": "relu"}, 3)
    conv = operator.get_parameter("block.0.weight"), operator.get_parameter("block.0.bias")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(operator(x), F.conv2d(x, *conv, stride=2, padding=1).relu())
    assert conv[0].shape == (3, 3, 3, 3)


@pytest.mark.parametrize("name", ["max", "avg", "strided", "blur", "max_blur"])
@pytest.mark.parametrize("kernel_size", [1, 2, 0, -3, 3.0, "3"])
def test_a_kernel_that_would_skip_samples_is_refused(name: str, kernel_size: object):
    with pytest.raises(UserError, match=rf"down={name}: kernel_size must be an integer of at least the stride \(3\)"):
        down({"name": name, "kernel_size": kernel_size}, stride=(3, 3))


@pytest.mark.parametrize(
    "build",
    [
        *(lambda n=name: down({"name": n, "kernel_size": 4}, stride=(1, 2)) for name in ("max", "avg", "strided")),
        lambda: up({"name": "transposed", "kernel_size": 4}, stride=(1, 2)),
    ],
    ids=["max", "avg", "strided", "transposed"],
)
def test_an_even_kernel_on_an_axis_of_stride_one_is_refused(build):
    with pytest.raises(UserError, match="kernel_size 4 cannot keep the size of an axis of stride 1"):
        build()


# Up, by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [None, 2, 3, 4, 5])
def test_every_transposed_kernel_doubles_exactly(kernel_size: int | None):
    operator = up({"name": "transposed", "kernel_size": kernel_size})
    for n in (1, 2, 5, 13):
        assert operator(torch.zeros(1, 1, n, 2 * n), None).shape[2:] == (2 * n, 4 * n)


@pytest.mark.parametrize(("kernel_size", "counts"), [(2, [1.0] * 4), (3, [1.0, 2.0, 1.0, 2.0]), (4, [2.0] * 4)])
def test_transposed_kernels_overlap_unevenly_unless_the_stride_divides_them(kernel_size: int, counts: list[float]):
    """Counts 1, 2 and 4 are the checkerboard."""
    operator = up({"name": "transposed", "kernel_size": kernel_size})
    nn.init.ones_(operator.get_parameter("conv.weight"))
    nn.init.zeros_(operator.get_parameter("conv.bias"))
    count = torch.tensor(counts)
    assert torch.equal(operator(torch.ones(1, 1, 6, 6), None)[0, 0, 4:8, 4:8], count[:, None] * count)


def test_transposed_adds_its_kernel_scaled_by_every_pixel():
    operator = up("transposed")
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    operator.get_parameter("conv.weight").data[0, 0] = kernel
    nn.init.zeros_(operator.get_parameter("conv.bias"))
    x = torch.tensor([[1.0, -1.0], [10.0, 0.0]])
    assert torch.equal(operator(x[None, None], None)[0, 0], torch.kron(x, kernel))


def test_bilinear_by_hand():
    a, b, c, d = 1.0, 5.0, 9.0, 21.0
    x = torch.tensor([[a, b], [c, d]])[None, None]
    y = set_to_identity(up("bilinear"))(x, None)[0, 0]
    # The fine sample (1, 1) lies a quarter of the way from a towards b and towards c; the corner has only a.
    assert y[0, 0] == a
    assert y[0, 1] == 3 / 4 * a + 1 / 4 * b
    assert y[1, 1] == 9 / 16 * a + 3 / 16 * b + 3 / 16 * c + 1 / 16 * d
    assert y[2, 1] == 3 / 16 * a + 1 / 16 * b + 9 / 16 * c + 3 / 16 * d
    assert y[3, 3] == d


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_the_kernel_after_interpolation_is_odd(name: str):
    assert up({"name": name, "kernel_size": 1})(torch.zeros(1, 1, 3, 3), None).shape[2:] == (6, 6)
    for kernel_size in (0, 2, -1, "3"):
        with pytest.raises(UserError, match="must be a positive odd integer"):
            up({"name": name, "kernel_size": kernel_size})


def test_unpool_puts_each_value_where_its_window_had_the_maximum():
    skip = torch.tensor([[1.0, 9.0, 2.0, 3.0], [4.0, 5.0, 7.0, 6.0]])[None, None]
    y = set_to_identity(up("unpool"))(torch.tensor([[-1.0, 0.5]])[None, None], skip)
    assert torch.equal(y[0, 0], torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]]))


@pytest.mark.parametrize("stride", [(2,), (3,), (2, 2), (3, 2), (2, 2, 2), (1, 2, 2)], ids=str)
def test_unpool_agrees_with_torch_on_the_indices_of_the_encoders_pooling(stride: tuple[int, ...]):
    d, coarse = len(stride), COARSE[: len(stride)]
    operator = up("unpool", 5, 3, stride)
    x = torch.randn(2, 5, *coarse)
    skip = torch.randint(0, 3, (2, 3, *fine_size(coarse, stride))).float()  # three values only: most windows have ties
    _, indices = getattr(F, f"max_pool{d}d")(skip, stride, return_indices=True)
    narrow, conv = operator.get_submodule("narrow"), operator.get_submodule("conv")
    expected = conv(getattr(F, f"max_unpool{d}d")(narrow(x), indices, stride))
    torch.testing.assert_close(operator(x, skip), expected)


# Context -------------------------------------------------------------------------------------------------------------


@given(size=st.lists(st.integers(1, 12), min_size=1, max_size=3), bins=st.integers(1, 6))
def test_bin_means_are_those_of_adaptive_average_pooling(size: list[int], bins: int):
    """Also where there are fewer samples than bins."""
    x = torch.randn(2, 3, *size)
    expected = getattr(F, f"adaptive_avg_pool{len(size)}d")(x, bins)
    torch.testing.assert_close(bin_means(x, [2, bins])[1], expected, atol=1e-6, rtol=1e-5)


def test_spp_depends_on_the_complete_image():
    operator = context("spp").eval()
    x = torch.randn(1, 6, 16, 16, requires_grad=True)
    operator(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None and x.grad[0, :, -1, -1].any()


# Alignment -----------------------------------------------------------------------------------------------------------

# An operator is centred if flipping its input flips its output. Learned kernels are made symmetric first, so that only
# the positions of the windows matter. A window of odd size at an even stride is centred on a pixel instead: coarse
# pixel i is at the fine position 2i, half a pixel before the centre 2i + 1/2 of a window of 2. These are listed.
DOWN_ON_A_PIXEL = ["strided", {"name": "max", "kernel_size": 3}, {"name": "avg", "kernel_size": 3}]
UP_ON_A_PIXEL = [{"name": "transposed", "kernel_size": 3}]
CENTRED_DOWN = [*(name for name in DOWN if name not in DOWN_ON_A_PIXEL), {"name": "strided", "kernel_size": 4}]
CENTRED_UP = [*(name for name in UP if name not in UP_ON_A_PIXEL), {"name": "transposed", "kernel_size": 4}]


def symmetrize(module: nn.Module) -> nn.Module:
    """Average every kernel with its mirror image, and channels that are positions with those of the mirrored ones."""
    for parameter in module.parameters():
        axes = list(range(2, parameter.ndim))
        if axes:
            parameter.data = (parameter.data + parameter.data.flip(axes)) / 2
    if isinstance(module, PixelUnshuffleDown):
        symmetrize_axis(module.get_parameter("block.0.weight"), 1, (4, -1))
    if isinstance(module, HaarDown):  # differences change their sign: only the means may pass
        module.get_parameter("block.0.weight").data[:, 4:] = 0
    if isinstance(module, HaarUp):
        module.get_parameter("conv.weight").data[4:] = 0
        module.get_parameter("conv.bias").data[4:] = 0
    if isinstance(module, CarafeUp):
        for name in ("weight", "bias"):
            symmetrize_axis(module.get_parameter(f"predict.1.{name}"), 0, (-1,))
    if isinstance(module, DySampleUp):
        nn.init.zeros_(module.offset.weight)
        nn.init.zeros_(module.offset.bias)
    return module


def symmetrize_axis(parameter: Tensor, axis: int, sizes: tuple[int, ...]) -> None:
    """Average a parameter with itself mirrored along the last of the axes that ``axis`` unfolds into."""
    unfolded = parameter.data.unflatten(axis, sizes)
    parameter.data = ((unfolded + unfolded.flip(axis + len(sizes) - 1)) / 2).flatten(axis, axis + len(sizes) - 1)


def specs_and_strides(specs) -> list:
    """Return all pairs of an operator and a stride of 2 along every axis that it supports."""
    return [(spec, (2,) * dims) for spec in specs for dims in (1, 2, 3) if supports(str(spec), (2,) * dims)]


def flip(x: Tensor) -> Tensor:
    return x.flip(list(range(2, x.ndim)))


@pytest.mark.parametrize(("spec", "stride"), specs_and_strides(CENTRED_DOWN), ids=str)
def test_mirroring_the_input_of_a_centred_down_mirrors_its_output(spec, stride: tuple[int, ...]):
    operator = symmetrize(down(spec, 4, stride)).eval()
    x = distinct(1, 4, *(12,) * len(stride)) / 100
    torch.testing.assert_close(operator(flip(x)), flip(operator(x)))


@pytest.mark.parametrize(("spec", "stride"), specs_and_strides(CENTRED_UP), ids=str)
def test_mirroring_the_inputs_of_a_centred_up_mirrors_its_output(spec, stride: tuple[int, ...]):
    operator = symmetrize(up(spec, 4, 4, stride)).eval()
    x, skip = distinct(1, 4, *(6,) * len(stride)) / 100, distinct(1, 4, *(12,) * len(stride)) / 100
    torch.testing.assert_close(operator(flip(x), flip(skip)), flip(operator(x, skip)))


def set_to_averages(module: nn.Module) -> nn.Module:
    """Set every convolution to the mean of its window, without bias, and every learned place to where it starts."""
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)):
        nn.init.constant_(conv.weight, 1 / conv.kernel_size[0])
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    if isinstance(module, HaarDown):  # the differences of a bump cancel; the means carry it
        module.get_parameter("block.0.weight").data[:, 1:] = 0
    if isinstance(module, HaarUp):
        module.conv.weight.data[1:] = 0
    if isinstance(module, DySampleUp):
        nn.init.zeros_(module.offset.weight)
    return module.double().eval()


@pytest.mark.parametrize("up_spec", [spec for spec in CENTRED_UP + UP_ON_A_PIXEL if spec != "bicubic"], ids=str)
@pytest.mark.parametrize("down_spec", CENTRED_DOWN + DOWN_ON_A_PIXEL, ids=str)
def test_down_and_up_do_not_shift_a_bump(down_spec, up_spec):
    """One down and one up return a bump at the centre to the centre.

    A down window centred on a sample moves it half a sample forward and such an up window half a sample back: together
    they undo each other. To a twentieth of a sample, because the maxima that unpooling writes to lean to the bump.
    """
    x = torch.exp(-((torch.arange(64, dtype=torch.float64) - 31.5) ** 2) / 50)[None, None]
    coarse = set_to_averages(down(down_spec, stride=(2,)))(x)
    y = set_to_averages(up(up_spec, stride=(2,)))(coarse, x).detach()
    shift = 0.5 * (down_spec in DOWN_ON_A_PIXEL) - 0.5 * (up_spec in UP_ON_A_PIXEL)
    centre_of_mass = float((y.flatten() * torch.arange(64)).sum() / y.sum())
    if up_spec == "sapa":  # the weights depend on the skip, which corrects part of the shift
        assert 31.45 < centre_of_mass < 31.5 + shift + 0.05
    else:
        assert centre_of_mass == pytest.approx(31.5 + shift, abs=0.05)
