"""Resize by interpolation, then convolve (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError
from unet.network.blocks import conv, odd_kernel
from unet.network.registry import UP

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""torch's name of linear interpolation along every spatial axis."""


class ResizeConv(nn.Module):
    """Interpolate to the skip's size, then a convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``k^d Cin Cout`` weights, applied at the fine resolution. Every output sample is made the same way, so no
    checkerboard is built in. ``kernel_size`` is odd; 1 only mixes channels, which interpolation leaves alone, so that
    the convolution may as well come first and cost ``prod(r)`` times less.
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

    def plain(self, x: Tensor) -> Tensor:
        """What the operator is, as it is written in the papers: the reference of every faster form."""
        return self.conv(self.resize(x))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.resize(self.conv(x)) if max(self.conv.kernel_size) == 1 else self.plain(x)

    def interpolate(self, x: Tensor, mode: str, **options: bool) -> Tensor:
        return F.interpolate(x, scale_factor=[float(r) for r in self.stride], mode=mode, **options)


@UP.register("nearest")
class NearestUp(ResizeConv):
    """Copy every sample r times along each axis, then convolve.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS). Keeps edges hard, in steps that the convolution smooths.

    Computed as one transposed convolution: copying is the transpose of summing windows, and two linear maps in a row
    are one. Each output sample then costs the taps that fall on different inputs: (2/3)^d of all at stride 2, kernel 3.
    """

    def resize(self, x: Tensor) -> Tensor:
        return self.interpolate(x, "nearest")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if max(self.conv.kernel_size) == 1:
            return self.resize(self.conv(x))
        transposed = getattr(F, f"conv_transpose{len(self.stride)}d")
        weight = fold(self.conv.weight, self.stride)
        return transposed(x, weight, self.conv.bias, stride=self.stride, padding=self.conv.padding)


def fold(weight: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The transposed convolution's kernel that equals nearest resizing by ``stride`` and then ``weight``.

    weight (Cout, Cin, *k) -> (Cin, Cout, *(k + r - 1)): along each axis the flipped kernel convolved with r ones.
    """
    for axis, r in enumerate(stride, start=2):
        last = weight.movedim(axis, -1)
        copies = [F.pad(last, (shift, r - 1 - shift)) for shift in range(r)]
        weight = torch.stack(copies).sum(0).movedim(-1, axis)
    return weight.flip([axis + 2 for axis in range(len(stride))]).transpose(0, 1)


@UP.register("linear", "bilinear", "trilinear")
class LinearUp(ResizeConv):
    """Weigh the two nearest samples along each axis, then convolve: bilinear in 2-D, trilinear in 3-D.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS). Smooth; sample centres stay where they were
    (``align_corners=False``), so nothing shifts.
    """

    def resize(self, x: Tensor) -> Tensor:
        fine = self.interpolate(x, LINEAR[len(self.stride)], align_corners=False)
        if fine.requires_grad and not torch.compiler.is_compiling():
            fine.register_hook(torch.clone)  # a slice of the concatenation's gradient made dense: the backward of the
        return fine  # interpolation is three times slower on the slice


@UP.register("bicubic")
class BicubicUp(ResizeConv):
    """Weigh the four nearest samples along each axis by a cubic, then convolve. 2-D only.

    x (B, Cin, H, W), skip unused -> (B, Cout, rH, rW). Sharper than linear; overshoots beside edges.
    Source: Keys 1981, Cubic convolution interpolation, https://doi.org/10.1109/TASSP.1981.1163711 (torch's a = -0.75).
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        if spatial_dims != 2:
            raise UserError(f"model.up=bicubic: for images of 2 axes, found {spatial_dims}; use linear")
        super().__init__(in_channels, out_channels, spatial_dims, stride, kernel_size)

    def resize(self, x: Tensor) -> Tensor:
        return self.interpolate(x, "bicubic", align_corners=False)
