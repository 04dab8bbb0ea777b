"""Textbook examples of pooling and convolutions, computed by hand and with the project's operators."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unet import DOWN, UP
from unet.network.geometry import same_padding

SHARED = {"norm": "batch", "act": "relu"}


def image(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def down(spec, stride: tuple[int, int] = (2, 2)):
    return DOWN.build(spec, SHARED, channels=1, spatial_dims=2, stride=stride)


def up(spec):
    return UP.build(spec, SHARED, in_channels=1, out_channels=1, spatial_dims=2, stride=(2, 2))


def test_a_kernel_slides_over_an_image():
    x = image([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    kernel = image([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    # Top left: 1 + 1 of the first row, 1 of the second, 0 + 1 of the third.
    assert torch.equal(F.conv2d(x, kernel), image([[4, 3, 4], [2, 4, 3], [2, 3, 4]]))


def test_a_diagonal_detector_on_an_x_then_pooled_at_stride_three():
    """The response is 3 along the anti-diagonal of the X and 1 on the other diagonal."""
    x = torch.clamp(torch.eye(5) + torch.eye(5).flip(1), max=1)[None, None]
    response = F.conv2d(x, torch.eye(3).flip(1)[None, None], padding=1)
    expected = [[1, 0, 1, 0, 2], [0, 1, 0, 3, 0], [1, 0, 3, 0, 1], [0, 3, 0, 1, 0], [2, 0, 1, 0, 1]]
    assert torch.equal(response, image(expected))
    # floor((5 - 2) / 3) + 1 = 2: the third row and column are not used, and the 3 in the middle is lost.
    assert torch.equal(F.max_pool2d(response, 2, 3), image([[1, 3], [3, 1]]))
    assert torch.equal(F.avg_pool2d(response, 2, 3), image([[0.5, 1.25], [1.25, 0.5]]))


def test_max_and_average_pooling_of_a_matrix():
    x = image([[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]])
    assert torch.equal(down("max")(x), image([[9, 2], [6, 3]]))
    assert torch.equal(down("avg")(x), image([[3.75, 1.25], [4.0, 2.0]]))


def test_a_transposed_convolution_is_zero_insertion_and_a_flipped_kernel():
    """2 x 2 by 3 x 3 at stride 2: 5 x 5 as a sum of patches, and as a convolution after zero insertion."""
    x, kernel = image([[1, 2], [3, 4]]), image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    output = torch.zeros(5, 5)
    for i in range(2):
        for j in range(2):
            output[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += x[0, 0, i, j] * kernel[0, 0]
    assert output[2, 2] == 1 * 9 + 2 * 7 + 3 * 3 + 4 * 1, "where all four patches overlap"
    dilated = torch.zeros(1, 1, 3, 3)
    dilated[..., ::2, ::2] = x
    assert torch.equal(F.conv2d(dilated, kernel.flip(2, 3), padding=2)[0, 0], output)
    operator = up({"name": "transposed", "kernel_size": 3})  # the same, cropped to twice the size
    operator.conv.weight.data, operator.conv.bias.data = kernel, torch.zeros(1)
    assert torch.equal(operator(x, None)[0, 0], output[1:, 1:])


def test_a_transposed_convolution_does_not_invert_a_convolution():
    x, kernel = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    restored = F.conv_transpose2d(F.conv2d(x, kernel, stride=2), kernel, stride=2)
    assert restored.shape == x.shape and not torch.allclose(restored, x)


def test_bilinear_interpolation_between_four_neighbours():
    """10 and 20 above, 30 and 60 below; a quarter to the right and a quarter down."""
    above, below = 0.75 * 10 + 0.25 * 20, 0.75 * 30 + 0.25 * 60
    expected = 0.75 * above + 0.25 * below
    assert expected == 18.75
    operator = up({"name": "bilinear", "kernel_size": 1})
    operator.conv.weight.data, operator.conv.bias.data = torch.ones(1, 1, 1, 1), torch.zeros(1)
    assert operator(image([[10, 20], [30, 60]]), None)[0, 0, 1, 1] == expected


def test_max_unpooling_expected():
    x = image([[1, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    assert pooled.flatten().tolist() == [5, 6, 7, 8] and indices.flatten().tolist() == [5, 2, 12, 15]
    operator = up("unpool")
    for conv in (operator.narrow, operator.conv):
        conv.weight.data.zero_()
        conv.weight.data[(0, 0, *(k // 2 for k in conv.kernel_size))] = 1
        conv.bias.data.zero_()
    assert torch.equal(operator(pooled, x), image([[0, 0, 6, 0], [0, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 8]]))


@pytest.mark.parametrize("f", [1, 3, 5, 7])
def test_padding_of_half_the_kernel_keeps_the_size(f: int):
    assert same_padding(f, (1, 1)) == ((f - 1) // 2,) * 2
    assert F.conv2d(torch.zeros(1, 1, 9, 11), torch.zeros(1, 1, f, f), padding=(f - 1) // 2).shape[2:] == (9, 11)


def test_how_often_a_pixel_is_used():
    """A 3 x 3 kernel uses a corner once and the middle nine times; with padding a corner four times."""

    def count_uses(padding: int) -> Tensor:
        x = torch.zeros(1, 1, 7, 7, requires_grad=True)
        F.conv2d(x, torch.ones(1, 1, 3, 3), padding=padding).sum().backward()
        assert x.grad is not None
        return x.grad[0, 0]

    assert [count_uses(0)[0, 0], count_uses(0)[0, 3], count_uses(0)[3, 3]] == [1, 3, 9]
    assert [count_uses(1)[0, 0], count_uses(1)[0, 3], count_uses(1)[3, 3]] == [4, 6, 9]


def test_a_three_wide_transposed_convolution_has_checkerboard_overlaps():
    """Patches of three at stride two overlap 1, 2, 1, 2 ... times along an axis; of two or four evenly."""

    def overlaps(kernel_size: int) -> Tensor:
        operator = up({"name": "transposed", "kernel_size": kernel_size})
        operator.conv.weight.data.fill_(1)
        operator.conv.bias.data.zero_()
        return operator(torch.ones(1, 1, 6, 6), None)[0, 0, 4:8, 4:8].detach()

    line = torch.tensor([1.0, 2.0, 1.0, 2.0])
    assert torch.equal(overlaps(3), line[:, None] * line)
    assert sorted(set(overlaps(3).flatten().tolist())) == [1, 2, 4]
    assert (overlaps(2) == 1).all() and (overlaps(4) == 4).all()
