"""Tiled prediction: equal to the whole where the network looks at single samples, covering, seamless, bounded."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unet.errors import UserError
from unet.inference import check_tile, predict, tent, windows

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (37,), 2: (23, 31), 3: (9, 14, 11)}


@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_network_that_looks_at_single_samples_gives_what_it_gives_for_the_whole(spatial_dims, overlap):
    size = SIZES[spatial_dims]
    net, image = CONV[spatial_dims](3, 4, 1), torch.randn(2, 3, *size)
    tile = [5, 8, 4][:spatial_dims]
    torch.testing.assert_close(predict(net, image, tile, overlap), net(image), rtol=1e-5, atol=1e-6)


def test_the_network_sees_tiles_of_one_size_and_never_more():
    seen = []

    def net(image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return image

    predict(net, torch.zeros(2, 1, 20, 50), [8, 60], 0.5)
    assert set(seen) == {(2, 1, 8, 50)}, "an axis shorter than the tile is taken whole"
    assert len(seen) == 4  # 12 samples beyond the first tile, in steps of at most 4


def test_an_image_that_fits_goes_through_at_once_and_is_the_networks_own():
    net, image = nn.Conv2d(1, 2, 3, padding=1), torch.randn(1, 1, 9, 12)
    assert torch.equal(predict(net, image, [9, 40]), net(image))
    assert torch.equal(predict(net, image), net(image))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=3), st.floats(0, 0.95))
def test_every_position_is_covered_by_tiles_that_overlap_enough(axes, overlap):
    size, tile = [n for n, _ in axes], [min(axis) for axis in axes]
    for n, m in zip(size, tile, strict=True):
        found = [window[0] for window in windows([n], [m], overlap)]
        assert found[0].start == 0 and found[-1].stop == n
        assert {part.stop - part.start for part in found} == {m}
        for before, after in pairwise(found):
            assert before.start < after.start <= before.stop
            assert before.stop - after.start >= math.floor(m * overlap) or after.start == before.start + 1
    count = torch.zeros(size)
    for window in windows(size, tile, max(overlap, 0.2)):
        count[window] += 1
    assert count.min() >= 1


def test_weights_rise_from_the_rim_to_the_middle():
    cpu = torch.device("cpu")
    assert (tent([5], cpu) * 3).tolist() == pytest.approx([1, 2, 3, 2, 1])
    assert (tent([4], cpu) * 2).tolist() == pytest.approx([1, 2, 2, 1])
    torch.testing.assert_close(tent([4, 3], cpu) * 4, torch.tensor([[1, 2, 1], [2, 4, 2], [2, 4, 2], [1, 2, 1.0]]))


def test_overlapping_tiles_are_blended_as_by_hand():
    """Two tiles of 4 over 6 samples: the first says 0, the second 1; weights 1 2 2 1, shared on samples 2 and 3."""
    tiles = iter([0.0, 1.0])
    logits = predict(lambda image: torch.full_like(image, next(tiles)), torch.zeros(1, 1, 6), [4], 0.25)
    assert logits.flatten().tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_network_stays_constant_in_any_precision(dtype):
    values = torch.tensor([0.3, -7.1, 100.3], dtype=dtype)
    logits = predict(
        lambda image: values.view(1, 3, 1, 1).expand(1, 3, *image.shape[2:]), torch.zeros(1, 1, 41, 29), [16, 16], 0.5
    )
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, values.float().view(1, 3, 1, 1).expand_as(logits), rtol=1e-6, atol=1e-6)


def test_bfloat16_tiles_are_summed_in_float32():
    """Summed in bfloat16 these logits would be off by up to a part in 128."""
    net, image = nn.Conv2d(2, 3, 1).bfloat16(), torch.randn(1, 2, 33, 27, dtype=torch.bfloat16)
    torch.testing.assert_close(predict(net, image, [8, 8], 0.75), net(image).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "tile, overlap, key",
    [([8], 0.25, "eval_tile"), ([8, 0], 0.25, "eval_tile"), (8, 0.25, "eval_tile"), (None, 1, "eval_overlap")],
)
def test_a_tile_that_makes_no_sense_is_named(tile, overlap, key):
    check_tile([8, 8], 0.5, 2)
    with pytest.raises(UserError, match=rf"data\.{key}: expected"):
        check_tile(tile, overlap, 2)
