"""Interpolation followed by a convolution (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError
from unet.network.blocks import conv, odd_kernel
from unet.network.ops.convolution import conv_transpose
from unet.network.registry import UP

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""torch's name of linear interpolation, by the number of spatial axes."""


class ResizeConv(nn.Module):
    """Interpolation to the size of the skip, then a convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``k^d Cin Cout`` weights, applied at the fine resolution. No checkerboard artifacts by construction. A convolution
    with ``kernel_size`` 1 commutes with the interpolation and is computed first, with ``prod(r)`` times fewer FLOPs.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        super().__init__()
        odd_kernel("up", kernel_size)
        self.stride = stride
        self.conv = conv(spatial_dims)(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def resize(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.resize(self.conv(x)) if max(self.conv.kernel_size) == 1 else self.conv(self.resize(x))

    def interpolate(self, x: Tensor, mode: str, **options: bool) -> Tensor:
        return F.interpolate(x, scale_factor=[float(r) for r in self.stride], mode=mode, **options)


@UP.register("nearest")
class NearestUp(ResizeConv):
    """Nearest-neighbour upsampling, then a convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    Computed as one equivalent transposed convolution, which needs (2/3)^d of the FLOPs at stride 2 and kernel size 3.
    """

    def resize(self, x: Tensor) -> Tensor:
        return self.interpolate(x, "nearest")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if max(self.conv.kernel_size) == 1:
            return super().forward(x, skip)
        weight = nearest_kernel(self.conv.weight, self.stride)
        return conv_transpose(x, weight, self.conv.bias, stride=self.stride, padding=self.conv.padding)


def nearest_kernel(weight: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest-neighbour upsampling and a convolution.

    weight (Cout, Cin, *k) -> (Cin, Cout, *(k + r - 1)): along each axis the flipped kernel convolved with r ones.
    """
    for axis, r in enumerate(stride, start=2):
        last = weight.movedim(axis, -1)
        copies = [F.pad(last, (shift, r - 1 - shift)) for shift in range(r)]
        weight = torch.stack(copies).sum(0).movedim(-1, axis)
    return weight.flip([axis + 2 for axis in range(len(stride))]).transpose(0, 1)


@UP.register("linear", "bilinear", "trilinear")
class LinearUp(ResizeConv):
    """Linear, bilinear or trilinear interpolation, then a convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    Pixel centres keep their positions (``align_corners=False``), so that nothing is shifted.
    """

    def resize(self, x: Tensor) -> Tensor:
        return self.interpolate(x, LINEAR[len(self.stride)], align_corners=False)


@UP.register("bicubic")
class BicubicUp(ResizeConv):
    """Bicubic interpolation, then a convolution. x (B, Cin, H, W), skip unused -> (B, Cout, rH, rW), 2-D only.

    Sharper than linear interpolation, with overshoots at edges.
    Source: Keys 1981, Cubic convolution interpolation, https://doi.org/10.1109/TASSP.1981.1163711 (torch's a = -0.75).
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        if spatial_dims != 2:
            raise UserError(f"model.up=bicubic: supports 2 spatial axes only, found {spatial_dims}; use linear")
        super().__init__(in_channels, out_channels, spatial_dims, stride, kernel_size)

    def resize(self, x: Tensor) -> Tensor:
        return self.interpolate(x, "bicubic", align_corners=False)
