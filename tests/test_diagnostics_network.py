"""Compare the diagnostics of a network (shift, checkerboard, information) with values computed by hand."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unet import UNet
from unet.diagnostics.checkerboard import (
    border_margin,
    logits_and_truth,
    peaks,
    peaks_by_stride,
    power_spectrum,
    prominences,
    relative_std,
)
from unet.diagnostics.information import Moments, blocks, encode, r_squared
from unet.diagnostics.probe_images import center_window, probe_images
from unet.diagnostics.shift import MAX_OFFSETS, compared_window, grid_offsets, predict_shifted, shift
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

TOTAL_STRIDE = (4, 4)


def make_data(images: Tensor, targets: Tensor) -> Any:
    """Return data of images (N, C, *S) and targets (N, *S), the most mixed labels first."""
    items = [SimpleNamespace(name=f"{index}.png") for index in range(len(images))]
    samples = SimpleNamespace(items=items, highest_entropy=lambda count: list(range(len(images)))[:count])
    dataset = SimpleNamespace(eval_item=lambda index: {"image": images[index, None], "target": targets[index, None]})
    return SimpleNamespace(samples={"test": samples}, dataset=lambda split, transforms: dataset)


def make_task(network: Callable[[Tensor], Tensor]) -> Any:
    """Return a task of two classes whose network is a function of images."""

    class Task:
        net = SimpleNamespace(total_stride=TOTAL_STRIDE, strides=[(2, 2), (2, 2)])
        classes = ("sea", "land")
        device = "cpu"

        def __call__(self, image: Tensor) -> Tensor:
            return network(image)

        def predict_labels(self, logits: Tensor) -> Tensor:
            return logits.argmax(1)

    return Task()


def pixelwise(image: Tensor) -> Tensor:
    """Return logits for two classes: land where the image is positive."""
    return torch.cat([-image, image], 1)


# Probe images


@pytest.mark.parametrize(
    ("size", "expected"),
    [((30, 33), (28, 32)), ((300, 12), (256, 12)), ((16, 16), (16, 16))],
)
def test_probe_images_are_center_crops_of_multiples_of_the_total_stride(
    size: tuple[int, int], expected: tuple[int, int]
):
    ramp = torch.arange(math.prod(size)).view(1, *size)
    ((image, target),) = probe_images(make_data(ramp[None], ramp), "test", 4, TOTAL_STRIDE)
    assert target.shape == expected and torch.equal(image[0, 0], target)
    y, x = ((n - m) // 2 for n, m in zip(size, expected, strict=True))
    assert target[0, 0] == ramp[0, y, x]


def test_an_image_that_is_too_small_is_named():
    data = make_data(torch.zeros(1, 1, 15, 16), torch.zeros(1, 15, 16))
    with pytest.raises(UserError, match=r"0\.png has 15 x 16 pixels; expected at least 16 x 16, 4 total strides"):
        probe_images(data, "test", 1, TOTAL_STRIDE, min_strides=4)


def test_crops_have_as_many_pixels_in_any_number_of_dimensions():
    widths = [[axis.stop - axis.start for axis in center_window((10**6,) * d, (16,) * d)] for d in (1, 2, 3)]
    assert widths == [[2**16], [256, 256], [64, 64, 64]], "at least four total strides of a volume"
    assert center_window((20, 64), (16, 16)) == (slice(2, 18), slice(0, 64))


# Shift


def test_shift_of_a_pixelwise_network():
    images = torch.randn(2, 1, 16, 16)
    targets = (images[:, 0] > 0).long()
    targets[0, 4:6] = 1 - targets[0, 4:6]  # wrong labels in 2 of the 5 compared rows
    targets[1] = IGNORE_INDEX
    result = shift(make_task(pixelwise), make_data(images, targets), "test")
    assert result == {"shift/agreement": 1, "shift/worst": 1, "shift/accuracy": 3 / 5}


def test_shift_of_a_network_that_labels_blocks():
    # Blocks of 4 x 4 take the label of their first pixel; the image is stripes two rows wide.
    image = torch.tensor([1.0, 1, -1, -1]).repeat(4)[:, None].expand(16, 16)[None, None]

    def by_block(x: Tensor) -> Tensor:
        return pixelwise(x[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))

    result = shift(make_task(by_block), make_data(image, (image[:, 0] > 0).long()), "test")
    # Shifted by 0, 1, 2, 3 rows blocks begin with 1, -1, -1, 1; unshifted, all is land.
    down = np.array([1, 0, 0, 1]).repeat(4)[1:]
    assert result["shift/agreement"] == pytest.approx(down.mean()) and result["shift/worst"] == 0
    assert result["shift/accuracy"] == pytest.approx(3 / 5), "rows 4 to 8: land, land, sea, sea, land"


@given(st.lists(st.integers(1, 32), min_size=1, max_size=3))
def test_offsets_cover_the_phases_of_every_axis_equally(total_stride: list[int]):
    offsets = grid_offsets(total_stride)
    assert all(any(offset) for offset in offsets) and offsets == grid_offsets(total_stride)
    if math.prod(total_stride) <= MAX_OFFSETS:
        assert sorted({(0,) * len(total_stride), *offsets}) == list(np.ndindex(*total_stride))
        return
    with_zero = offsets + [(0,) * len(total_stride)] * (MAX_OFFSETS - len(offsets))
    for phases, r in zip(zip(*with_zero, strict=True), total_stride, strict=True):
        counts = np.bincount(phases, minlength=r)
        assert len(counts) == r and counts.max() - counts.min() <= 1


def test_ignored_images_have_no_agreement():
    images = torch.randn(1, 1, 16, 16)
    with pytest.raises(UserError, match="are ignored"):
        shift(make_task(pixelwise), make_data(images, torch.full((1, 16, 16), IGNORE_INDEX)), "test")


def with_circular_padding(net: UNet) -> UNet:
    """Make the convolutions of a network wrap around."""
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.padding_mode = "circular"
    return net.double().eval()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("down", ["max", "strided"])
def test_shifts_by_the_total_stride_change_nothing_under_circular_padding(spatial_dims: int, down: str):
    net = with_circular_padding(UNet(1, 1, width=4, depth=2, down=down, act="elu", spatial_dims=spatial_dims))
    image = torch.randn(1, 1, *(16,) * spatial_dims, dtype=torch.float64)
    with torch.no_grad():
        median = net(image).quantile(0.5) + 1e-9

    def predict(image: Tensor) -> Tensor:
        with torch.no_grad():
            return (net(image)[0, 0] > median).long()

    unshifted = predict(image)
    assert unshifted.double().mean() == 0.5
    for count in (1, 2):
        assert torch.equal(predict_shifted(predict, image, (4 * count,) * spatial_dims), unshifted)
    phase = (1,) * spatial_dims
    assert not torch.equal(predict_shifted(predict, image, phase), unshifted)


def test_labels_of_a_shifted_image_are_rolled_back():
    image = torch.tensor([0.0, 1, 2, 3, 4, 5]).view(1, 1, 6)

    def block_sums(x: Tensor) -> Tensor:  # a label per pair of pixels, on a grid that starts at 0
        return x.view(3, 2).sum(1).repeat_interleave(2).long()

    assert block_sums(image).tolist() == [1, 1, 5, 5, 9, 9]
    # Shifted: 5 0 | 1 2 | 3 4 -> 5 5 3 3 7 7, and back.
    assert predict_shifted(block_sums, image, (1,)).tolist() == [5, 3, 3, 7, 7, 5]


@given(st.integers(1, 16), st.integers(0, 60))
def test_the_compared_window_is_away_from_the_borders(stride: int, extra: int):
    n = 2 * stride + extra
    (window,) = compared_window((n,), (stride,))
    positions = np.arange(n)[window]
    assert len(positions) > 0
    for offset in range(stride):
        assert min(positions + offset) >= n // 4 and max(positions + offset) <= n - 1 - n // 4


# Checkerboard


def test_relative_std_by_hand():
    # Phases 1 and 3: deviation 1, in units of 2 and of 4; a class with constant logits does not count.
    responses = np.array([[[1.0, 3], [1, 3], [1, 3]]])
    assert relative_std(responses, np.array([2.0, 4, 0])) == pytest.approx((1 / 2 + 1 / 4) / 2)
    with pytest.raises(UserError, match="constant on every image"):
        relative_std(responses, np.zeros(3))


def test_the_border_margin_is_half_the_field_up_to_a_limit():
    assert border_margin(204, 16, 2) == 112 and border_margin(3, 2, 1) == 2
    assert border_margin(math.inf, 16, 2) == 496 and 2 * 496 + 16 <= 1024
    assert border_margin(204, 16, 3) == 32 and (2 * 32 + 16) ** 3 <= 2**20


def constant_response(up: str, spatial_dims: int) -> np.ndarray:
    torch.manual_seed(0)
    net = UNet(1, 2, width=4, depth=1, up=up, spatial_dims=spatial_dims, norm="none", act="elu").eval()
    with torch.no_grad():
        return net(torch.ones(1, 1, *(26,) * spatial_dims))[(..., *[slice(12, 14)] * spatial_dims)].numpy()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_transposed_convolutions_respond_unevenly_to_a_constant_and_nearest_does_not(spatial_dims: int):
    assert relative_std(constant_response("nearest", spatial_dims), np.ones(2)) < 1e-6
    assert relative_std(constant_response("transposed", spatial_dims), np.ones(2)) > 1e-3


def impulse(spatial_dims: int, n: int = 32) -> Tensor:
    """Return maps with a 1 in the center: a flat spectrum under a window that is 1 there."""
    maps = torch.zeros(1, 1, *(n,) * spatial_dims)
    maps[(0, 0, *[n // 2] * spatial_dims)] = 1
    return maps


def test_the_spectrum_of_an_impulse_is_flat_and_of_a_wave_its_amplitude():
    power = power_spectrum(impulse(1)[0].numpy(), 1)
    assert len(power) == 17 and power[2:] == pytest.approx(1)
    wave = np.cos(2 * np.pi * 4 * np.arange(32) / 32)
    power = power_spectrum(wave[None], 1)
    # Half the amplitude times the window's sum, 16; its neighbours half of that, as Hann's three coefficients say.
    assert power[[3, 4, 5]] == pytest.approx([4.0**2, 8.0**2, 4.0**2])
    assert power[[0, 1, 2, *range(6, 17)]] == pytest.approx(0)


def test_a_planted_pattern_is_measured():
    pattern = torch.tensor([1.0, -1.0]).repeat(16)
    result = peaks_by_stride(impulse(1) + 0.25 * pattern, [(2,), (2,)])
    # At 1/2 the impulse's 1 and the pattern's 0.25 * 16 add up, (-1)^16 being 1; elsewhere only the impulse.
    assert result == {(2,): pytest.approx((1 + 0.25 * 16) ** 2), (4,): pytest.approx(1)}


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_pattern_of_the_second_level_is_a_peak_of_that_level_only(spatial_dims: int):
    pattern = torch.cos(torch.arange(32) * math.pi / 2)
    result = peaks_by_stride(impulse(spatial_dims) + pattern, [(2,) * spatial_dims] * 2)
    assert result[2,] == pytest.approx(1, abs=0.01) and result[4,] > 10


def test_peaks_are_reported_for_logits_and_truth():
    images = torch.randn(3, 1, 32, 36)
    targets = (images[:, 0] > 0).long()
    targets[0, :3] = IGNORE_INDEX
    pattern = torch.ones(32, 36)
    pattern[1::2] = -1

    task = make_task(lambda image: pixelwise(image) + pattern)
    logits, truth = zip(*logits_and_truth(task, make_data(images, targets), "test"), strict=True)
    result = peaks(logits, truth, task.net.strides)
    assert set(result) == {f"checkerboard/{name}/{stride}" for name in ("peak", "peak_truth") for stride in (2, 4)}
    assert result["checkerboard/peak/2"] > 5 and result["checkerboard/peak_truth/2"] < 2
    assert result["checkerboard/peak/4"] < 2 and result["checkerboard/peak_truth/4"] < 2


def test_strides_that_differ_by_axis_name_each_axis_and_flat_maps_have_no_peaks():
    assert list(peaks_by_stride(torch.randn(1, 1, 32, 32), [(1, 2), (2, 2)])) == [(1, 2), (2, 4)]
    assert peaks_by_stride(torch.ones(1, 1, 32, 32), [(2, 2)]) == {}


def test_an_axis_of_less_than_four_total_strides_has_no_peaks():
    maps = impulse(1, 32) + 0.25 * torch.tensor([1.0, -1.0]).repeat(16)
    result = peaks_by_stride(maps[:, :, None].expand(1, 1, 6, 32), [(2, 2)])
    assert result == {(2,): pytest.approx((1 + 0.25 * 16) ** 2)}
    assert peaks_by_stride(torch.randn(1, 1, 6, 6), [(2, 2)]) == {}


def test_a_level_has_the_frequencies_that_no_finer_level_has():
    falling = 0.5 ** np.arange(17)
    # 32 samples, stride 8 after 4: 1/8 and 3/8, positions 4 and 12 of the spectrum; 1/4 and 1/2 belong to finer ones.
    assert list(prominences(falling, 32, 8, 4, 8)) == pytest.approx([1, 1]), (
        "no peaks where the spectrum falls by equal factors"
    )
    falling[12] *= 3
    assert list(prominences(falling, 32, 8, 4, 8)) == pytest.approx([1, 3])
    assert list(prominences(falling, 32, 8, 1, 8)) == pytest.approx([1, 1, 3, 0.5**16 / 0.5**14])


# Information


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_blocks_correspond_to_the_positions_of_a_level(spatial_dims: int):
    image = np.random.default_rng(0).normal(size=(2, *(4,) * spatial_dims))
    result = blocks(image, (2,) * spatial_dims)
    assert result.shape == (2**spatial_dims, 2 * 2**spatial_dims)
    last = image[(slice(None), *[slice(2, 4)] * spatial_dims)]
    assert result[-1].tolist() == last.ravel().tolist()


def moments(features: np.ndarray, targets: np.ndarray) -> Moments:
    result = Moments()
    for part in np.array_split(np.arange(len(features)), 3):  # several images
        result.add(features[part], targets[part])
    return result


def test_the_penalty_by_hand():
    # y = 2 x becomes y = 2 x / (1 + 1) under a penalty of the variance of x.
    train = moments(np.array([[-1.0], [1]]), np.array([[-2.0], [2]]))
    many = train + train
    assert many.count == 4 and many.square == 16
    assert r_squared(many, many, 0) == pytest.approx(1)
    assert r_squared(many, many, 1) == pytest.approx(1 - 4 / 16)


def test_the_regression_agrees_with_numpy():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    features[:, 2] = 0  # a dead channel
    known = np.column_stack([np.ones(40), features[:40]])
    weights = np.linalg.lstsq(known, targets[:40])[0]
    error = np.square(np.column_stack([np.ones(20), features[40:]]) @ weights - targets[40:]).sum()
    expected = 1 - error / np.square(targets[40:] - targets[40:].mean(0)).sum()
    train, test = moments(features[:40], targets[:40]), moments(features[40:], targets[40:])
    assert r_squared(train, test, 1e-6) == pytest.approx(expected, abs=1e-4)


def test_too_few_positions_or_constant_images_have_no_r_squared():
    rng = np.random.default_rng(0)
    few = moments(rng.normal(size=(5, 4)), rng.normal(size=(5, 1)))
    with pytest.raises(UserError, match="5 positions are too few"):
        r_squared(few, few, 1)
    flat = moments(rng.normal(size=(50, 4)), np.ones((50, 1)))
    with pytest.raises(UserError, match="are constant"):
        r_squared(flat, flat, 1)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_the_encoder_s_maps_are_those_of_a_prediction(spatial_dims: int):
    net = UNet(2, 3, width=4, depth=2, spatial_dims=spatial_dims).eval()
    image = torch.randn(1, 2, *(10,) * spatial_dims)
    inputs, outputs = [], []
    net.stem.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    for level in (net.stem, *net.encoder):
        level.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        net(image)
        expected = [*inputs, *outputs]
        maps = list(encode(net, image))
    sizes = [(1, channels, *(n,) * spatial_dims) for channels, n in ((2, 12), (4, 12), (8, 6), (16, 3))]
    assert [tuple(item.shape) for item in maps] == sizes
    assert all(map(torch.equal, maps, expected))
