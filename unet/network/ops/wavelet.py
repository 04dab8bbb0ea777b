"""Haar wavelet transform: sums and differences of neighbours, an invertible rearrangement into bands."""

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.blocks import ConvNormAct, conv, odd_kernel
from unet.network.registry import DOWN, UP


def halved_axes(operator: str, stride: tuple[int, ...]) -> list[int]:
    """Return the tensor axes with stride 2; raise UserError for a stride other than 1 or 2."""
    if any(r not in (1, 2) for r in stride):
        raise UserError(f"model.{operator}: the Haar wavelet supports strides of 1 and 2, found {stride}")
    return [axis for axis, r in enumerate(stride, start=2) if r == 2]


def haar(x: Tensor, axes: list[int]) -> Tensor:
    """Apply one level of the orthonormal transform along ``axes``: (B, C, *2S) -> (B, 2^a C, *S), means first."""
    for axis in axes:
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([even + odd, even - odd], dim=1) * 0.5**0.5
    return x


def inverse_haar(x: Tensor, axes: list[int]) -> Tensor:
    """Invert :func:`haar`: (B, 2^a C, *S) -> (B, C, *2S)."""
    for axis in reversed(axes):
        low, high = x.chunk(2, dim=1)
        x = torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1) * 0.5**0.5
    return x


@DOWN.register("haar")
class HaarDown(nn.Module):
    """Haar wavelet transform, then a pointwise convolution. x (B, C, *2S) -> (B, C, *S).

    The 2^d frequency bands of every channel become channels; average pooling keeps only the first band.
    ``2^d C^2`` weights. Source: Xu et al. 2023, Haar wavelet downsampling,
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
    """Convolution, then the inverse Haar wavelet transform. x (B, Cin, *S), skip unused -> (B, Cout, *2S).

    The convolution computes 2^d frequency bands for every output channel. ``2^d k^d Cin Cout`` weights, applied at the
    coarse resolution. With ``kernel_size: 1``, equivalent to a transposed convolution with a kernel of 2.
    Source: Liu et al. 2018, Multi-level wavelet-CNN, https://arxiv.org/abs/1805.07071.
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
