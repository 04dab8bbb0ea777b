"""Sliding-window prediction: positions of tiles, their weights, and blended logits."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unet import UNet
from unet.analysis.receptive_field import receptive_fields
from unet.errors import UserError
from unet.inference.tiling import (
    check_tile,
    gaussian_window,
    overlap_samples,
    place_tiles,
    predict_logits,
    sliding_window,
)

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (37,), 2: (23, 31), 3: (9, 14, 11)}


@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_tiles_of_a_pointwise_network_give_the_logits_of_the_complete_image(spatial_dims: int, overlap: float):
    net, image = CONV[spatial_dims](3, 4, 1), torch.randn(2, 3, *SIZES[spatial_dims])
    tile = [5, 8, 4][:spatial_dims]
    torch.testing.assert_close(predict_logits(net, image, tile, overlap), net(image), rtol=1e-5, atol=1e-6)


def test_every_tile_has_the_same_size_at_most_that_of_the_image():
    shapes = []

    def net(image: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(image.shape))
        return image

    predict_logits(net, torch.zeros(2, 1, 20, 50), [8, 60], 0.5)
    assert shapes == [(2, 1, 8, 50)] * 4  # 12 rows after the first tile, in steps of at most 4


def test_an_image_that_fits_into_a_tile_has_exactly_the_logits_of_the_network():
    net, image = nn.Conv2d(1, 2, 3, padding=1), torch.randn(1, 1, 9, 12)
    assert torch.equal(predict_logits(net, image, [9, 40]), net(image))
    assert torch.equal(predict_logits(net, image), net(image))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=3),
    st.floats(0, 0.95),
)
def test_tiles_cover_the_image_at_multiples_of_the_stride_with_the_overlap(axes, overlap):
    size, tile, multiple = zip(*axes, strict=True)
    min_overlap = overlap_samples(tile, overlap)
    tiles = place_tiles(size, tile, min_overlap, multiple)
    for axis, (n, r) in enumerate(zip(size, multiple, strict=True)):
        starts, m, before = tiles.starts[axis], tiles.tile[axis], tiles.before[axis]
        assert starts[0] == 0 and before == -n % r // 2 and starts[-1] + m == -(-n // r) * r
        assert m % r == 0 and not [start for start in starts if start % r]
        for first, second in pairwise(starts):
            assert first < second <= first + m
            assert first + m - second >= min_overlap[axis] or second == first + r
        total = torch.zeros(starts[-1] + m)
        for start, weights in zip(starts, tiles.tile_weights(axis, total.device), strict=True):
            total[start : start + m] += weights
        torch.testing.assert_close(total, torch.ones_like(total))


@given(
    st.lists(st.tuples(st.integers(1, 23), st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=3),
    st.floats(0, 0.8),
    st.integers(1, 3),
)
def test_windows_cover_the_image_once_in_raster_order_with_the_weighted_mean_of_all_tiles(axes, overlap, batch):
    size, tile, multiple = zip(*axes, strict=True)
    tiles = place_tiles(size, tile, overlap_samples(tile, overlap), multiple)
    image = torch.rand(1, 1, *size)

    def net(image: torch.Tensor) -> torch.Tensor:
        """Return logits that depend on the tile."""
        return torch.cat([image + image.flatten(1).mean(1).view(-1, 1, *[1] * len(size)), -image], 1)

    total = torch.zeros(1, 2, *[axis[-1] + m for axis, m in zip(tiles.starts, tiles.tile, strict=True)])
    total_weight = torch.zeros_like(total)
    for index in tiles.indices():
        window = tuple(slice(axis[n], axis[n] + m) for axis, n, m in zip(tiles.starts, index, tiles.tile, strict=True))
        weight = torch.ones(())
        for m in tiles.tile:
            weight = weight[..., None] * gaussian_window(m, weight.device)
        total[:, :, *window] += net(tiles.read(lambda window: image[:, :, *window], index)) * weight
        total_weight[:, :, *window] += weight
    unpadded = [slice(before, before + n) for before, n in zip(tiles.before, size, strict=True)]
    expected = (total / total_weight)[:, :, *unpadded]
    count, previous = torch.zeros(size), ()
    for window, logits in sliding_window(net, lambda window: image[:, :, *window], tiles, batch):
        torch.testing.assert_close(logits, expected[:, :, *window], rtol=1e-4, atol=1e-5)
        count[window] += 1
        corner = tuple(axis.start for axis in window)
        assert corner > previous
        previous = corner
    assert (count == 1).all()


def test_the_centre_of_a_tile_has_the_logits_of_the_complete_image():
    """Compare pixels that are at least half a receptive field away from the borders of their only tile."""
    settings = {"in_channels": 1, "num_classes": 2, "width": 4, "depth": 2, "up": "nearest", "down": "avg"}
    net, image = UNet(**settings).eval(), torch.randn(1, 1, 191, 287)
    half_field = int(max(receptive_fields(settings).logits)) // 2 + 1
    logits = predict_logits(net, image, [96, 96], 0, net.total_stride)
    inner = [(torch.arange(n) % 96 - 47.5).abs() < 48 - half_field for n in image.shape[2:]]
    mask = inner[0][:, None] & inner[1]
    assert mask.sum() > 500
    with torch.no_grad():
        torch.testing.assert_close(logits[..., mask], net(image)[..., mask], rtol=1e-4, atol=1e-5)


def test_weights_of_a_tile_are_gaussian():
    """Three pixels and sigma 3/8: exp(-(1 / (3/8))^2 / 2) = exp(-32/9) at the borders."""
    weights = gaussian_window(3, torch.device("cpu"))
    assert weights.tolist() == pytest.approx([math.exp(-32 / 9), 1, math.exp(-32 / 9)])
    assert 1 / 3200 < gaussian_window(1024, torch.device("cpu"))[0] < 1 / 2800


def test_two_overlapping_tiles_by_hand():
    """Two tiles of 4 pixels with logits 0 and 1 share pixels 2 and 3.

    Sigma is 1/2: the weights are exp(-4.5) at the border and exp(-0.5) inside, so the border has 1 / (1 + exp(4)).
    """
    values = iter([0.0, 1.0])
    logits = predict_logits(lambda image: torch.full_like(image, next(values)), torch.zeros(1, 1, 6), [4], 0.25)
    border = 1 / (1 + math.exp(4))
    assert logits.flatten().tolist() == pytest.approx([0, 0, border, 1 - border, 1, 1])


def test_bfloat16_tiles_are_averaged_in_float32():
    """In bfloat16 the error would be up to 1/128."""
    net, image = nn.Conv2d(2, 3, 1).bfloat16(), torch.randn(1, 2, 33, 27, dtype=torch.bfloat16)
    torch.testing.assert_close(predict_logits(net, image, [8, 8], 0.75), net(image).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "tile, overlap, key",
    [([8], 0.25, "eval_tile"), ([8, 0], 0.25, "eval_tile"), (8, 0.25, "eval_tile"), (None, 1, "eval_overlap")],
)
def test_an_invalid_tile_or_overlap_is_refused(tile, overlap, key):
    check_tile([8, 8], 0.5, 2)
    with pytest.raises(UserError, match=rf"data\.{key}: expected"):
        check_tile(tile, overlap, 2)
