"""Convolutions that change the resolution themselves: strided down, transposed up."""

from torch import Tensor, nn

from unet.network.blocks import ConvNormAct, covering_kernel
from unet.network.geometry import same_padding
from unet.network.registry import DOWN, UP


@DOWN.register("strided")
class StridedDown(nn.Module):
    """A convolution with the stage's stride, normalised and activated. x (B, C, *rS) -> (B, C, *S).

    Learns what to keep, for ``k^d C^2`` weights; padded so that sizes divide exactly. An odd kernel is centred on a
    sample and not between two, so its output lies half a sample off a 2-wide pooling's: the weights absorb it.
    Source: Springenberg et al. 2015, Striving for simplicity, https://arxiv.org/abs/1412.6806.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        stride: tuple[int, ...],
        kernel_size: int = 3,
        norm: str = "batch",
        act: str = "relu",
    ):
        super().__init__()
        kernel_size = covering_kernel("down=strided", kernel_size, stride)
        padding = same_padding(kernel_size, stride)
        self.block = ConvNormAct(channels, channels, spatial_dims, kernel_size, stride, padding, norm, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


@UP.register("transposed")
class TransposedUp(nn.Module):
    """The transpose of a strided convolution: every sample paints a ``kernel_size`` patch, overlaps add up.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``k^d Cin Cout`` weights. With the default kernel, the stride's, patches tile without overlap, as in U-Net's paper.
    A kernel the stride does not divide overlaps unevenly and paints a checkerboard (Odena et al. 2016,
    https://distill.pub/2016/deconv-checkerboard). It restores a size; it does not invert a convolution.
    Source: Long et al. 2015, https://arxiv.org/abs/1411.4038, after Zeiler et al. 2010; in U-Net,
    https://arxiv.org/abs/1505.04597.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stride: tuple[int, ...],
        kernel_size: int | None = None,
    ):
        super().__init__()
        # (n - 1) r - 2p + k + o = r n, the size wanted, gives o = 2p - (k - r).
        kernel: tuple[int, ...] = stride
        if kernel_size is not None:
            kernel = (covering_kernel("up=transposed", kernel_size, stride),) * spatial_dims
        padding = tuple(same_padding(k, (r,))[0] for k, r in zip(kernel, stride, strict=True))
        extra = tuple(2 * p - (k - r) for p, k, r in zip(padding, kernel, stride, strict=True))
        transposed = getattr(nn, f"ConvTranspose{spatial_dims}d")
        self.conv = transposed(in_channels, out_channels, kernel, stride, padding, output_padding=extra)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(x)
