"""What a network is asked: shifts, checkerboards and what its encoder keeps, against values worked by hand."""

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
from unet.diagnostics.checkerboard import margin, peaks, peaks_by_stride, prominences, spectrum, spread
from unet.diagnostics.information import Moments, blocks, r_squared, watching
from unet.diagnostics.probe_images import examples, middle, stacked
from unet.diagnostics.shift import compared, phases, shift, shifted
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

TOTAL_STRIDE = (4, 4)


def data_of(images: Tensor, targets: Tensor) -> Any:
    """Data of images (N, C, *S) and targets (N, *S), the most varied first."""
    items = [SimpleNamespace(name=f"{index}.png") for index in range(len(images))]
    samples = SimpleNamespace(items=items, highest_entropy=lambda count: list(range(len(images)))[:count])
    dataset = SimpleNamespace(eval_item=lambda index: {"image": images[index, None], "target": targets[index, None]})
    return SimpleNamespace(samples={"test": samples}, dataset=lambda split, transforms: dataset)


def task_of(network: Callable[[Tensor], Tensor]) -> Any:
    """A task of two classes whose network is a function of images."""

    class Task:
        net = SimpleNamespace(total_stride=TOTAL_STRIDE, strides=[(2, 2), (2, 2)])
        classes = ("sea", "land")
        device = "cpu"

        def __call__(self, image: Tensor) -> Tensor:
            return network(image)

        def predict_labels(self, logits: Tensor) -> Tensor:
            return logits.argmax(1)

    return Task()


def by_sample(image: Tensor) -> Tensor:
    """Logits for two classes: land where the image is positive."""
    return torch.cat([-image, image], 1)


# Examples


@pytest.mark.parametrize(
    ("size", "seen"),
    [((30, 33), (28, 32)), ((300, 12), (256, 12)), ((16, 16), (16, 16))],
)
def test_examples_are_middles_of_whole_total_strides(size: tuple[int, int], seen: tuple[int, int]):
    ramp = torch.arange(math.prod(size)).view(1, *size)
    ((image, target),) = examples(data_of(ramp[None], ramp), "test", 4, TOTAL_STRIDE)
    assert target.shape == seen and torch.equal(image[0, 0], target)
    y, x = ((n - m) // 2 for n, m in zip(size, seen, strict=True))
    assert target[0, 0] == ramp[0, y, x]


def test_an_example_that_is_too_narrow_is_refused_by_name():
    data = data_of(torch.zeros(1, 1, 15, 16), torch.zeros(1, 15, 16))
    with pytest.raises(UserError, match=r"needs images of 16 x 16 at least, 4 total strides; 0\.png has 15 x 16"):
        examples(data, "test", 1, TOTAL_STRIDE, least=4)


def test_as_many_samples_are_looked_at_in_any_number_of_dimensions():
    widths = [[part.stop - part.start for part in middle((10**6,) * d, (16,) * d)] for d in (1, 2, 3)]
    assert widths == [[2**16], [256, 256], [64, 64, 64]], "a volume of four total strides, if it has them"
    assert middle((20, 64), (16, 16)) == (slice(2, 18), slice(0, 64))


def test_maps_are_stacked_as_far_as_the_smallest_reaches():
    one, other = torch.rand(1, 2, 4, 9), torch.rand(1, 2, 5, 8)
    assert torch.equal(stacked([one, other]), torch.cat([one[..., :8], other[:, :, :4]]))


# Shift


def test_shift_of_a_network_that_looks_at_each_sample_alone():
    images = torch.randn(2, 1, 16, 16)
    targets = (images[:, 0] > 0).long()
    targets[0, 4:6] = 1 - targets[0, 4:6]  # wrong: 2 of the 5 rows that are compared
    targets[1] = IGNORE_INDEX
    found = shift(task_of(by_sample), data_of(images, targets), "test")
    assert found == {"shift/agreement": 1, "shift/worst": 1, "shift/accuracy": 3 / 5}


def test_shift_of_a_network_that_labels_whole_blocks():
    # Blocks of 4 x 4 take the label of their first sample; the image is stripes two rows wide.
    image = torch.tensor([1.0, 1, -1, -1]).repeat(4)[:, None].expand(16, 16)[None, None]

    def by_block(x: Tensor) -> Tensor:
        return by_sample(x[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))

    found = shift(task_of(by_block), data_of(image, (image[:, 0] > 0).long()), "test")
    # Shifted by 0, 1, 2, 3 rows blocks begin with 1, -1, -1, 1; still, all is land.
    down = np.array([1, 0, 0, 1]).repeat(4)[1:]
    assert found["shift/agreement"] == pytest.approx(down.mean()) and found["shift/worst"] == 0
    assert found["shift/accuracy"] == pytest.approx(3 / 5), "rows 4 to 8: land, land, sea, sea, land"


def test_where_nothing_is_labelled_there_is_no_agreement():
    images = torch.randn(1, 1, 16, 16)
    with pytest.raises(UserError, match="nothing is labelled"):
        shift(task_of(by_sample), data_of(images, torch.full((1, 16, 16), IGNORE_INDEX)), "test")


def on_a_torus(net: UNet) -> UNet:
    """The network with convolutions that wrap around."""
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.padding_mode = "circular"
    return net.double().eval()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("down", ["max", "strided"])
def test_on_a_torus_shifts_by_the_total_stride_change_nothing(spatial_dims: int, down: str):
    net = on_a_torus(UNet(1, 1, width=4, depth=2, down=down, act="elu", spatial_dims=spatial_dims))
    image = torch.randn(1, 1, *(16,) * spatial_dims, dtype=torch.float64)
    with torch.no_grad():
        middle = net(image).quantile(0.5) + 1e-9

    def predict(image: Tensor) -> Tensor:
        with torch.no_grad():
            return (net(image)[0, 0] > middle).long()

    still = predict(image)
    assert still.double().mean() == 0.5
    for count in (1, 2):
        assert torch.equal(shifted(predict, image, (4 * count,) * spatial_dims), still)
    phase = (1,) * spatial_dims
    assert not torch.equal(shifted(predict, image, phase), still)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_what_looks_at_samples_one_by_one_agrees_with_itself_at_every_shift(offset):
    image = torch.randn(1, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted(lambda x: (x[0, 0] > 0).long(), image, offset), (image[0, 0] > 0).long())


def test_a_shift_by_hand():
    image = torch.tensor([0.0, 1, 2, 3, 4, 5]).view(1, 1, 6)

    def block_sums(x: Tensor) -> Tensor:  # a label a pair of samples, on a grid that starts at 0
        return x.view(3, 2).sum(1).repeat_interleave(2).long()

    assert block_sums(image).tolist() == [1, 1, 5, 5, 9, 9]
    # Shifted: 5 0 | 1 2 | 3 4 -> 5 5 3 3 7 7, and back.
    assert shifted(block_sums, image, (1,)).tolist() == [5, 3, 3, 7, 7, 5]


def test_phases_are_all_or_a_sample_that_stays():
    assert phases((2, 2), 9) == [(0, 1), (1, 0), (1, 1)]
    assert phases((1, 1), 9) == []
    assert len(set(phases((16, 16), 32))) == 32 and phases((16, 16), 32) == phases((16, 16), 32)


@given(st.integers(1, 16), st.integers(0, 60))
def test_what_is_compared_stays_away_from_the_borders(stride: int, extra: int):
    n = 2 * stride + extra
    (window,) = compared((n,), (stride,))
    places = np.arange(n)[window]
    assert len(places) > 0
    for offset in range(stride):
        assert min(places + offset) >= n // 4 and max(places + offset) <= n - 1 - n // 4


# Checkerboard


def test_spread_by_hand():
    # Phases 1 and 3: deviation 1, in units of 2 and of 4; a class that never deviates does not count.
    responses = np.array([[[1.0, 3], [1, 3], [1, 3]]])
    assert spread(responses, np.array([2.0, 4, 0])) == pytest.approx((1 / 2 + 1 / 4) / 2)
    with pytest.raises(UserError, match="the same everywhere"):
        spread(responses, np.zeros(3))


def test_margin_is_half_the_field_where_there_is_room():
    assert margin(204, 16, 2) == 112 and margin(3, 2, 1) == 2
    assert margin(math.inf, 16, 2) == 496 and 2 * 496 + 16 <= 1024
    assert margin(204, 16, 3) == 32 and (2 * 32 + 16) ** 3 <= 2**20


def constant_response(up: str, spatial_dims: int) -> np.ndarray:
    torch.manual_seed(0)
    net = UNet(1, 2, width=4, depth=1, up=up, spatial_dims=spatial_dims, norm="none", act="elu").eval()
    with torch.no_grad():
        return net(torch.ones(1, 1, *(26,) * spatial_dims))[(..., *[slice(12, 14)] * spatial_dims)].numpy()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_transposed_kernel_answers_unevenly_to_a_constant_and_nearest_does_not(spatial_dims: int):
    assert spread(constant_response("nearest", spatial_dims), np.ones(2)) < 1e-6
    assert spread(constant_response("transposed", spatial_dims), np.ones(2)) > 1e-3


def impulse(spatial_dims: int, n: int = 32) -> Tensor:
    """One sample of 1 in the middle: all frequencies alike, under a window that is 1 there."""
    maps = torch.zeros(1, 1, *(n,) * spatial_dims)
    maps[(0, 0, *[n // 2] * spatial_dims)] = 1
    return maps


def test_the_spectrum_of_an_impulse_is_flat_and_a_wave_is_its_amplitude():
    power = spectrum(impulse(1)[0].numpy(), 1)
    assert len(power) == 17 and power[2:] == pytest.approx(1)
    wave = np.cos(2 * np.pi * 4 * np.arange(32) / 32)
    power = spectrum(wave[None], 1)
    # Half the amplitude times the window's sum, 16; its neighbours half of that, as Hann's three coefficients say.
    assert power[[3, 4, 5]] == pytest.approx([4.0**2, 8.0**2, 4.0**2])
    assert power[[0, 1, 2, *range(6, 17)]] == pytest.approx(0)


def test_a_planted_pattern_is_found_by_hand():
    pattern = torch.tensor([1.0, -1.0]).repeat(16)
    found = peaks_by_stride(impulse(1) + 0.25 * pattern, [(2,), (2,)])
    # At 1/2 the impulse's 1 and the pattern's 0.25 * 16 add up, (-1)^16 being 1; elsewhere there is the impulse alone.
    assert found == {(2,): pytest.approx((1 + 0.25 * 16) ** 2), (4,): pytest.approx(1)}


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_pattern_of_the_second_level_shows_there_alone(spatial_dims: int):
    pattern = torch.cos(torch.arange(32) * math.pi / 2)
    found = peaks_by_stride(impulse(spatial_dims) + pattern, [(2,) * spatial_dims] * 2)
    assert found[2,] == pytest.approx(1, abs=0.01) and found[4,] > 10


def test_peaks_of_logits_stand_beside_those_of_the_truth():
    images = torch.randn(3, 1, 32, 36)
    targets = (images[:, 0] > 0).long()
    targets[0, :3] = IGNORE_INDEX
    board = torch.ones(32, 36)
    board[1::2] = -1

    found = peaks(task_of(lambda image: by_sample(image) + board), data_of(images, targets), "test")
    assert set(found) == {f"checkerboard/{name}/{stride}" for name in ("peak", "peak_truth") for stride in (2, 4)}
    assert found["checkerboard/peak/2"] > 5 and found["checkerboard/peak_truth/2"] < 2
    assert found["checkerboard/peak/4"] < 2 and found["checkerboard/peak_truth/4"] < 2


def test_noise_has_no_peaks():
    maps = torch.randn(4, 3, 64, 64)
    found = peaks_by_stride(maps, [(2, 2), (2, 2), (2, 2)])
    assert all(0.8 < value < 1.25 for value in found.values()) and list(found) == [(2,), (4,), (8,)]


def test_strides_that_differ_by_axis_are_named_by_axis_and_flat_maps_have_no_peaks():
    assert list(peaks_by_stride(torch.randn(1, 1, 32, 32), [(1, 2), (2, 2)])) == [(1, 2), (2, 4)]
    assert peaks_by_stride(torch.ones(1, 1, 32, 32), [(2, 2)]) == {}


def test_an_axis_of_less_than_four_total_strides_has_no_peaks():
    maps = impulse(1, 32) + 0.25 * torch.tensor([1.0, -1.0]).repeat(16)
    found = peaks_by_stride(maps[:, :, None].expand(1, 1, 6, 32), [(2, 2)])
    assert found == {(2,): pytest.approx((1 + 0.25 * 16) ** 2)}
    assert peaks_by_stride(torch.randn(1, 1, 6, 6), [(2, 2)]) == {}


def test_a_level_s_frequencies_are_those_no_finer_level_has():
    falling = 0.5 ** np.arange(17)
    # 32 samples, stride 8 after 4: 1/8 and 3/8, places 4 and 12 of the spectrum; 1/4 and 1/2 belong to finer ones.
    assert list(prominences(falling, 32, 8, 4, 8)) == pytest.approx([1, 1]), "falling by equal factors: no peaks"
    falling[12] *= 3
    assert list(prominences(falling, 32, 8, 4, 8)) == pytest.approx([1, 3])
    assert list(prominences(falling, 32, 8, 1, 8)) == pytest.approx([1, 1, 3, 0.5**16 / 0.5**14])


# Information


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_blocks_are_what_each_coarse_sample_stands_for(spatial_dims: int):
    image = np.random.default_rng(0).normal(size=(2, *(4,) * spatial_dims))
    found = blocks(image, (2,) * spatial_dims)
    assert found.shape == (2**spatial_dims, 2 * 2**spatial_dims)
    last = image[(slice(None), *[slice(2, 4)] * spatial_dims)]
    assert found[-1].tolist() == last.ravel().tolist()


def moments(features: np.ndarray, targets: np.ndarray) -> Moments:
    found = Moments()
    for part in np.array_split(np.arange(len(features)), 3):  # as images come
        found.add(features[part], targets[part])
    return found


def test_features_that_hold_the_image_score_one_and_unrelated_ones_nothing():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(2000, 4)) + 3
    mixed = targets @ rng.normal(size=(4, 4)) + 1
    half = slice(None, 1000), slice(1000, None)
    held = {"mixed": mixed, "part": mixed[:, :2], "noise": rng.normal(size=(2000, 4))}
    found = {
        name: r_squared(*(moments(features[part], targets[part]) for part in half), 1e-6)
        for name, features in held.items()
    }
    assert found["mixed"] == pytest.approx(1, abs=1e-6)
    assert 0.2 < found["part"] < 0.8 and abs(found["noise"]) < 0.02


def test_r_squared_by_hand():
    # Fitted: y = 2 x. Held: 1 is told as 2 (right), 3 as 6 (true: 8). Error 4, deviation from the mean 5: 18.
    fitted = moments(np.array([[0.0], [1], [2], [3]]), np.array([[0.0], [2], [4], [6]]))
    held = moments(np.array([[1.0], [3]]), np.array([[2.0], [8]]))
    assert r_squared(fitted, held, 1e-6) == pytest.approx(1 - 4 / 18, abs=1e-5)


def test_the_penalty_by_hand():
    # x and y vary by 2 about their means of 0: y = 2 x becomes 2 x / (1 + 1) under a penalty of the variance itself.
    fitted = moments(np.array([[-1.0], [1]]), np.array([[-2.0], [2]]))
    many = fitted + fitted
    assert many.count == 4 and many.square == 16
    assert r_squared(many, many, 0) == pytest.approx(1)
    assert r_squared(many, many, 1) == pytest.approx(1 - 4 / 16)


def test_the_regression_is_that_of_numpy():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    features[:, 2] = 0  # a dead channel
    known = np.column_stack([np.ones(40), features[:40]])
    weights = np.linalg.lstsq(known, targets[:40])[0]
    error = np.square(np.column_stack([np.ones(20), features[40:]]) @ weights - targets[40:]).sum()
    expected = 1 - error / np.square(targets[40:] - targets[40:].mean(0)).sum()
    fitted, held = moments(features[:40], targets[:40]), moments(features[40:], targets[40:])
    assert r_squared(fitted, held, 1e-6) == pytest.approx(expected, abs=1e-4)


def test_too_few_positions_or_images_without_content_have_no_r_squared():
    rng = np.random.default_rng(0)
    few = moments(rng.normal(size=(5, 4)), rng.normal(size=(5, 1)))
    with pytest.raises(UserError, match="5 positions are too few"):
        r_squared(few, few, 1)
    flat = moments(rng.normal(size=(50, 4)), np.ones((50, 1)))
    with pytest.raises(UserError, match="do not vary"):
        r_squared(flat, flat, 1)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_every_level_is_seen_once_with_the_padded_image(spatial_dims: int):
    net = UNet(2, 3, width=4, depth=2, spatial_dims=spatial_dims).eval()
    levels = [net.stem, *net.encoder]
    with torch.no_grad(), watching(levels) as seen:
        for _ in range(2):
            net(torch.zeros(1, 2, *(10,) * spatial_dims))
    sizes = [(1, channels, *(n,) * spatial_dims) for channels, n in ((2, 12), (4, 12), (8, 6), (16, 3))]
    assert [tuple(one.shape) for one in seen] == sizes
    assert not any(level._forward_hooks for level in levels)
