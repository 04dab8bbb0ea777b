"""The Haar wavelet: sums and differences of neighbours, which lose nothing and can be undone exactly."""

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.blocks import ConvNormAct, conv, odd_kernel
from unet.network.registry import DOWN, UP


def halved_axes(operator: str, stride: tuple[int, ...]) -> list[int]:
    """The tensor axes that are halved; a stride other than 1 or 2 is refused: the Haar wavelet halves."""
    if any(r not in (1, 2) for r in stride):
        raise UserError(
            f"model.{operator}: the Haar wavelet halves an axis or leaves it: stride 1 or 2, found {stride}"
        )
    return [axis for axis, r in enumerate(stride, start=2) if r == 2]


def haar(x: Tensor, axes: list[int]) -> Tensor:
    """One level of the orthonormal transform along ``axes``: (B, C, *2S) -> (B, 2^a C, *S), the means first."""
    for axis in axes:
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([even + odd, even - odd], dim=1) * 0.5**0.5
    return x


def inverse_haar(x: Tensor, axes: list[int]) -> Tensor:
    """The inverse of :func:`haar`: (B, 2^a C, *S) -> (B, C, *2S)."""
    for axis in reversed(axes):
        low, high = x.chunk(2, dim=1)
        x = torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1) * 0.5**0.5
    return x


@DOWN.register("haar")
class HaarDown(nn.Module):
    """Local means and differences along every axis become channels, a 1-wide convolution brings the width back.

    x (B, C, *2S) -> (B, C, *S). ``2^d C^2`` weights. Keeps everything up to the convolution, sorted by frequency: what
    average pooling keeps is one of 2^d bands. Source: Xu et al. 2023, Haar wavelet downsampling,
    https://doi.org/10.1016/j.patcog.2023.109819.
    """

    def __init__(
        self, channels: int, spatial_dims: int, stride: tuple[int, ...], norm: str = "batch", act: str = "relu"
    ):
        super().__init__()
        self.axes = halved_axes("down=haar", stride)
        self.block = ConvNormAct(channels * 2 ** len(self.axes), channels, spatial_dims, 1, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(haar(x, self.axes))


@UP.register("haar")
class HaarUp(nn.Module):
    """A convolution makes the 2^d bands of every output channel, the inverse wavelet puts them together.

    x (B, Cin, *S), skip unused -> (B, Cout, *2S).

    ``2^d k^d Cin Cout`` weights, at the coarse resolution. With ``kernel_size: 1`` it can do what a 2-wide transposed
    convolution can, in other coordinates. Source: Liu et al. 2018, Multi-level wavelet-CNN, https://arxiv.org/abs/1805.07071.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        super().__init__()
        odd_kernel("up=haar", kernel_size)
        self.axes = halved_axes("up=haar", stride)
        bands = out_channels * 2 ** len(self.axes)
        self.conv = conv(spatial_dims)(in_channels, bands, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return inverse_haar(self.conv(x), self.axes)
