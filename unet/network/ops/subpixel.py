"""Pixel shuffle and unshuffle: rearrangement of pixels into channels and back."""

import math

import torch
from torch import Tensor, nn

from unet.network.blocks import ConvNormAct, conv, odd_kernel
from unet.network.ops.windows import join_windows, split_windows
from unet.network.registry import DOWN, UP


@DOWN.register("pixel_unshuffle")
class PixelUnshuffleDown(nn.Module):
    """Pixel unshuffle, then a pointwise convolution. x (B, C, *rS) -> (B, C, *S).

    The pixels of every window become channels. ``prod(r) C^2`` weights. Equivalent to a strided convolution with a
    kernel of the size of the stride. Source: Shi et al. 2016 (pixel shuffle), https://arxiv.org/abs/1609.05158; as a
    down operator, Sunkara & Luo 2022, https://arxiv.org/abs/2208.03641.
    """

    def __init__(
        self, channels: int, spatial_dims: int, stride: tuple[int, ...], norm: str = "batch", act: str = "relu"
    ):
        super().__init__()
        self.stride = stride
        self.block = ConvNormAct(channels * math.prod(stride), channels, spatial_dims, 1, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(split_windows(x, self.stride).flatten(1, 2))


@UP.register("pixel_shuffle")
class PixelShuffleUp(nn.Module):
    """Convolution, then pixel shuffle (sub-pixel convolution). x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    The convolution computes prod(r) channels for each output channel, which become the pixels of a window.
    ``prod(r) k^d Cin Cout`` weights, applied at the coarse resolution. The kernels of one window are initialized as
    copies (ICNR), which equals nearest-neighbour upsampling and avoids checkerboard artifacts.
    Source: Shi et al. 2016, https://arxiv.org/abs/1609.05158; ICNR: Aitken et al. 2017, https://arxiv.org/abs/1707.02937.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        super().__init__()
        odd_kernel("up=pixel_shuffle", kernel_size)
        self.stride, self.num_positions = stride, math.prod(stride)
        make = conv(spatial_dims)
        initial = make(in_channels, out_channels, kernel_size)
        self.conv = make(in_channels, out_channels * self.num_positions, kernel_size, padding=kernel_size // 2)
        with torch.no_grad():  # the kernels of one output channel are consecutive
            for name in ("weight", "bias"):
                getattr(self.conv, name).copy_(getattr(initial, name).repeat_interleave(self.num_positions, dim=0))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return join_windows(self.conv(x).unflatten(1, (-1, self.num_positions)), self.stride)
