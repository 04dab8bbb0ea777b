"""Tiled prediction: equal to the whole where the network looks at single samples, covering, seamless, bounded."""

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
def test_a_network_that_looks_at_single_samples_gives_what_it_gives_for_the_whole(spatial_dims, overlap):
    size = SIZES[spatial_dims]
    net, image = CONV[spatial_dims](3, 4, 1), torch.randn(2, 3, *size)
    tile = [5, 8, 4][:spatial_dims]
    torch.testing.assert_close(predict_logits(net, image, tile, overlap), net(image), rtol=1e-5, atol=1e-6)


def test_the_network_sees_tiles_of_one_size_and_never_more():
    seen = []

    def net(image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return image

    predict_logits(net, torch.zeros(2, 1, 20, 50), [8, 60], 0.5)
    assert set(seen) == {(2, 1, 8, 50)}, "an axis shorter than the tile is taken whole"
    assert len(seen) == 4  # 12 samples beyond the first tile, in steps of at most 4


def test_an_image_that_fits_goes_through_at_once_and_is_the_networks_own():
    net, image = nn.Conv2d(1, 2, 3, padding=1), torch.randn(1, 1, 9, 12)
    assert torch.equal(predict_logits(net, image, [9, 40]), net(image))
    assert torch.equal(predict_logits(net, image), net(image))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=3),
    st.floats(0, 0.95),
)
def test_tiles_cover_every_sample_on_the_grid_and_overlap_enough(axes, overlap):
    size, tile, multiple = zip(*axes, strict=True)
    wanted = overlap_samples(tile, overlap)
    found = place_tiles(size, tile, wanted, multiple)
    for axis, (n, r) in enumerate(zip(size, multiple, strict=True)):
        begins, m, before = found.starts[axis], found.tile[axis], found.before[axis]
        assert begins[0] == 0 and before == -n % r // 2 and begins[-1] + m == -(-n // r) * r
        assert m % r == 0 and not [start for start in begins if start % r]
        for first, second in pairwise(begins):
            assert first < second <= first + m
            assert first + m - second >= wanted[axis] or second == first + r
        total = torch.zeros(begins[-1] + m)
        for start, share in zip(begins, found.tile_weights(axis, total.device), strict=True):
            total[start : start + m] += share
        torch.testing.assert_close(total, torch.ones_like(total))


@given(
    st.lists(st.tuples(st.integers(1, 23), st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=3),
    st.floats(0, 0.8),
    st.integers(1, 3),
)
def test_parts_come_once_in_order_and_blend_as_if_all_were_held(axes, overlap, batch):
    """Against the plain sum of weighted tiles over the whole image; the network here depends on the tile."""
    size, tile, multiple = zip(*axes, strict=True)
    tiles = place_tiles(size, tile, overlap_samples(tile, overlap), multiple)
    image = torch.rand(1, 1, *size)

    def net(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image + image.flatten(1).mean(1).view(-1, 1, *[1] * len(size)), -image], 1)

    total = torch.zeros(1, 2, *[axis[-1] + m for axis, m in zip(tiles.starts, tiles.tile, strict=True)])
    weights = torch.zeros_like(total)
    for place in tiles.indices():
        window = tuple(slice(axis[n], axis[n] + m) for axis, n, m in zip(tiles.starts, place, tiles.tile, strict=True))
        weight = torch.ones(())
        for m in tiles.tile:
            weight = weight[..., None] * gaussian_window(m, weight.device)
        total[:, :, *window] += net(tiles.read(lambda window: image[:, :, *window], place)) * weight
        weights[:, :, *window] += weight
    inside = [slice(before, before + n) for before, n in zip(tiles.before, size, strict=True)]
    expected = (total / weights)[:, :, *inside]
    seen, last = torch.zeros(size), ()
    for window, part in sliding_window(net, lambda window: image[:, :, *window], tiles, batch):
        torch.testing.assert_close(part, expected[:, :, *window], rtol=1e-4, atol=1e-5)
        seen[window] += 1
        corner = tuple(axis.start for axis in window)
        assert corner > last
        last = corner
    assert (seen == 1).all()


def test_away_from_seams_tiles_say_what_the_whole_image_says():
    """A field of 14 samples about a grid of 4: tiles that share 16 leave each sample to one that sees all it needs."""
    settings = {"in_channels": 1, "num_classes": 2, "width": 4, "depth": 2, "up": "nearest", "down": "avg"}
    net, image = UNet(**settings).eval(), torch.randn(1, 1, 91, 118)
    field = receptive_fields(settings).logits
    reach = int(max(field)) // 2 + 1
    tiles = place_tiles((91, 118), (48, 48), (24, 24), net.total_stride)
    with torch.no_grad():
        whole = net(image)
    parts = torch.zeros_like(whole)
    for window, part in sliding_window(net, lambda window: image[:, :, *window], tiles):
        parts[:, :, *window] = part
    alone = []  # samples of one tile only, farther than the network reaches from its rims inside the image
    for axis, n in enumerate((91, 118)):
        begins, m, p = tiles.starts[axis], tiles.tile[axis], tiles.before[axis]
        count, far = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
        for start in begins:
            first, stop = max(start - p, 0), min(start - p + m, n)
            count[first:stop] += 1
            low, high = (first + reach if first else 0), (stop - reach if stop < n else n)
            far[low : max(high, low)] = True
        alone.append((count == 1) & far)
    inside = alone[0][:, None] & alone[1]
    assert inside.sum() > 500
    torch.testing.assert_close(parts[..., inside], whole[..., inside], rtol=1e-4, atol=1e-5)


def test_weights_are_a_gaussian_about_the_middle():
    """Three samples of sigma 3/8: exp(-(1 / (3/8))^2 / 2) = exp(-32/9) at the rims."""
    weight = gaussian_window(3, torch.device("cpu"))
    assert weight.tolist() == pytest.approx([math.exp(-32 / 9), 1, math.exp(-32 / 9)])
    assert 1 / 3200 < gaussian_window(1024, torch.device("cpu"))[0] < 1 / 2800


def test_overlapping_tiles_are_blended_as_by_hand():
    """Two tiles of 4 over 6 samples, the first says 0, the second 1; they share samples 2 and 3.

    Sigma is 1/2, so weights are exp(-(3/2)^2 2) = exp(-4.5) at the rims and exp(-0.5) inside: the rim has a say of
    1 / (1 + exp(4)).
    """
    tiles = iter([0.0, 1.0])
    logits = predict_logits(lambda image: torch.full_like(image, next(tiles)), torch.zeros(1, 1, 6), [4], 0.25)
    rim = 1 / (1 + math.exp(4))
    assert logits.flatten().tolist() == pytest.approx([0, 0, rim, 1 - rim, 1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_network_stays_constant_in_any_precision(dtype):
    values = torch.tensor([0.3, -7.1, 100.3], dtype=dtype)
    logits = predict_logits(
        lambda image: values.view(1, 3, 1, 1).expand(1, 3, *image.shape[2:]), torch.zeros(1, 1, 41, 29), [16, 16], 0.5
    )
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, values.float().view(1, 3, 1, 1).expand_as(logits), rtol=1e-6, atol=1e-6)


def test_bfloat16_tiles_are_summed_in_float32():
    """Summed in bfloat16 these logits would be off by up to a part in 128."""
    net, image = nn.Conv2d(2, 3, 1).bfloat16(), torch.randn(1, 2, 33, 27, dtype=torch.bfloat16)
    torch.testing.assert_close(predict_logits(net, image, [8, 8], 0.75), net(image).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "tile, overlap, key",
    [([8], 0.25, "eval_tile"), ([8, 0], 0.25, "eval_tile"), (8, 0.25, "eval_tile"), (None, 1, "eval_overlap")],
)
def test_a_tile_that_makes_no_sense_is_named(tile, overlap, key):
    check_tile([8, 8], 0.5, 2)
    with pytest.raises(UserError, match=rf"data\.{key}: expected"):
        check_tile(tile, overlap, 2)
