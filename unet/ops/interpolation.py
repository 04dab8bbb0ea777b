"""Resize by interpolation, then convolve (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard)."""

from torch import Tensor, nn
from torch.nn import functional as F

from unet.blocks import conv
from unet.errors import UserError
from unet.registry import UP

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""torch's name of linear interpolation along every spatial axis."""


class ResizeConv(nn.Module):
    """Interpolate to the skip's size, then a convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``k^d Cin Cout`` weights, applied at the fine resolution. Every output sample is made the same way, so no
    checkerboard is built in. ``kernel_size`` is odd; 1 only mixes channels, which interpolation leaves alone: the
    convolution then comes first, with the same result for ``prod(r)`` times less work.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int = 3
    ):
        super().__init__()
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(
                f"model.up: kernel_size after interpolation must be a positive odd integer, found {kernel_size!r}"
            )
        self.scale = tuple(float(r) for r in stride)
        self.conv = conv(spatial_dims)(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def resize(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.resize(self.conv(x)) if max(self.conv.kernel_size) == 1 else self.conv(self.resize(x))


@UP.register("nearest")
class NearestUp(ResizeConv):
    """Copy every sample r times along each axis, then convolve.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS). Keeps edges hard, in steps that the convolution smooths.
    """

    def resize(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


@UP.register("bilinear")
class BilinearUp(ResizeConv):
    """Weigh the two nearest samples along each axis (four in 2-D), then convolve.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS). Linear in 1-D, trilinear in 3-D. Smooth; sample centres stay where
    they were (``align_corners=False``), so nothing shifts.
    """

    def resize(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode=LINEAR[x.ndim - 2], align_corners=False)
