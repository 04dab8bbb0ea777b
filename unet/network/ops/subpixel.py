"""Resolution traded for channels and back: nothing is computed away, samples only change places."""

import math

import torch
from torch import Tensor, nn

from unet.network.blocks import ConvNormAct, conv, odd_kernel
from unet.network.ops.windows import join_windows, split_windows
from unet.network.registry import DOWN, UP


@DOWN.register("pixel_unshuffle")
class PixelUnshuffleDown(nn.Module):
    """Every window's samples become channels, a 1-wide convolution brings the width back. x (B, C, *rS) -> (B, C, *S).

    ``prod(r) C^2`` weights. Keeps every sample up to the convolution, which learns what to drop: a strided convolution
    with the stride's kernel, in other words. Source: Shi et al. 2016 (the shuffle), https://arxiv.org/abs/1609.05158;
    as a down operator Sunkara & Luo 2022, https://arxiv.org/abs/2208.03641.
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
    """A convolution makes prod(r) channels for each one wanted, which become its window of samples.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``prod(r) k^d Cin Cout`` weights, applied at the coarse resolution. Kernels of one window drawn apart would paint a
    checkerboard, so they start as copies of one another (ICNR): at first this is nearest-neighbour resizing.
    Source: Shi et al. 2016, https://arxiv.org/abs/1609.05158; ICNR: Aitken et al. 2017, https://arxiv.org/abs/1707.02937.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        super().__init__()
        odd_kernel("up=pixel_shuffle", kernel_size)
        self.stride, self.places = stride, math.prod(stride)
        make = conv(spatial_dims)
        start = make(in_channels, out_channels, kernel_size)
        self.conv = make(in_channels, out_channels * self.places, kernel_size, padding=kernel_size // 2)
        with torch.no_grad():  # the places of one output channel are consecutive, so each kernel is repeated in place
            for name in ("weight", "bias"):
                getattr(self.conv, name).copy_(getattr(start, name).repeat_interleave(self.places, dim=0))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return join_windows(self.conv(x).unflatten(1, (-1, self.places)), self.stride)
