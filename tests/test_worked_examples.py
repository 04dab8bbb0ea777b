"""The worked examples of docs/operators.md, computed by hand and with the project's operators."""

import pytest
import torch
from conftest import script
from torch.nn import functional as F

from unet.network.geometry import same_padding

EXAMPLES = {name: dict(example()) for name, example in script("worked_examples").EXAMPLES.items()}


@pytest.mark.parametrize(
    ("example", "panel", "expected"),
    [
        # Top left: 1 + 1 of the first row, 1 of the second, 0 + 1 of the third.
        ("convolution", "convolved", [[4, 3, 4], [2, 4, 3], [2, 3, 4]]),
        # The response is 3 along the anti-diagonal of the X and 1 on the other diagonal.
        (
            "pooled_x",
            "convolved, padding 1",
            [[1, 0, 1, 0, 2], [0, 1, 0, 3, 0], [1, 0, 3, 0, 1], [0, 3, 0, 1, 0], [2, 0, 1, 0, 1]],
        ),
        # floor((5 - 2) / 3) + 1 = 2: the third row and column are not used, and the 3 in the middle is lost.
        ("pooled_x", "max, window 2, stride 3", [[1, 3], [3, 1]]),
        ("pooled_x", "average", [[0.5, 1.25], [1.25, 0.5]]),
        ("pooling", "max, 2 x 2", [[9, 2], [6, 3]]),
        ("pooling", "average, 2 x 2", [[3.75, 1.25], [4.0, 2.0]]),
        # Where all four patches overlap: 1 * 9 + 2 * 7 + 3 * 3 + 4 * 1 = 36.
        (
            "transposed",
            "transposed, stride 2",
            [[1, 2, 5, 4, 6], [4, 5, 14, 10, 12], [10, 14, 36, 24, 30], [12, 15, 34, 20, 24], [21, 24, 55, 32, 36]],
        ),
        (
            "transposed",
            "in the network: twice the size",
            [[5, 14, 10, 12], [14, 36, 24, 30], [15, 34, 20, 24], [24, 55, 32, 36]],
        ),
        ("unpooling", "indices of the maxima", [[5, 2], [12, 15]]),
        ("unpooling", "max-unpooled", [[0, 0, 6, 0], [0, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 8]]),
    ],
)
def test_an_example_by_hand(example: str, panel: str, expected: list[list[float]]):
    assert EXAMPLES[example][panel][0, 0].tolist() == expected


def test_a_transposed_convolution_is_zero_insertion_and_a_flipped_kernel():
    panels = EXAMPLES["transposed"]
    assert torch.equal(panels["transposed, stride 2"], panels["convolved: the same"])


def test_bilinear_interpolation_between_four_neighbours():
    """10 and 20 above, 30 and 60 below; a quarter to the right and a quarter down."""
    above, below = 0.75 * 10 + 0.25 * 20, 0.75 * 30 + 0.25 * 60
    assert EXAMPLES["bilinear"]["bilinear"][0, 0, 1, 1] == 0.75 * above + 0.25 * below == 18.75


@pytest.mark.parametrize("f", [1, 3, 5, 7])
def test_padding_of_half_the_kernel_keeps_the_size(f: int):
    assert same_padding(f, (1, 1)) == ((f - 1) // 2,) * 2
    assert F.conv2d(torch.zeros(1, 1, 9, 11), torch.zeros(1, 1, f, f), padding=(f - 1) // 2).shape[2:] == (9, 11)


def test_how_often_a_pixel_is_used():
    """A 3 x 3 kernel uses a corner once and the middle nine times; with padding a corner four times."""
    for panel, expected in (("uses, no padding", [1, 3, 9]), ("uses, padding 1", [4, 6, 9])):
        uses = EXAMPLES["padding"][panel][0, 0]
        assert [uses[0, 0], uses[0, 3], uses[3, 3]] == expected


@pytest.mark.parametrize(("kernel_size", "counts"), [(2, [1]), (3, [1, 2, 4]), (4, [4])])
def test_a_three_wide_transposed_convolution_has_checkerboard_overlaps(kernel_size: int, counts: list[int]):
    """Patches of three at stride two overlap 1, 2, 1, 2 ... times along an axis; of two or four evenly."""
    inner = EXAMPLES["checkerboard"][f"overlapping patches, kernel {kernel_size}"][..., 2:-2, 2:-2]
    assert sorted(set(inner.flatten().tolist())) == counts
