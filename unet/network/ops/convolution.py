"""Strided and transposed convolutions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import ConvNormAct, covering_kernel
from unet.network.geometry import same_padding
from unet.network.registry import DOWN, UP


@DOWN.register("strided")
class StridedDown(nn.Module):
    """Strided convolution with normalization and activation. x (B, C, *rS) -> (B, C, *S).

    ``k^d C^2`` weights; padded so that the size is divided exactly. An odd kernel is centred on a pixel, half a pixel
    from the centre of a pooling window of 2; the weights can compensate for the shift.
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
        padding = same_padding(covering_kernel("down=strided", kernel_size, stride), stride)
        self.block = ConvNormAct(channels, channels, spatial_dims, kernel_size, stride, padding, norm, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


@UP.register("transposed")
class TransposedUp(nn.Module):
    """Transposed convolution. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    Every input pixel adds a weighted copy of the kernel to the output. ``k^d Cin Cout`` weights. By default the kernel
    has the size of the stride, so that copies do not overlap, as in the U-Net paper. A kernel size that is not a
    multiple of the stride overlaps unevenly, which causes checkerboard artifacts (Odena et al. 2016,
    https://distill.pub/2016/deconv-checkerboard).
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
        # (n - 1) r - 2p + k + o = r n gives the output padding o = 2p - (k - r).
        kernel: tuple[int, ...] = stride
        if kernel_size is not None:
            kernel = (covering_kernel("up=transposed", kernel_size, stride),) * spatial_dims
        padding = tuple(same_padding(k, (r,))[0] for k, r in zip(kernel, stride, strict=True))
        output_padding = tuple(2 * p - (k - r) for p, k, r in zip(padding, kernel, stride, strict=True))
        transposed = getattr(nn, f"ConvTranspose{spatial_dims}d")
        self.conv = transposed(in_channels, out_channels, kernel, stride, padding, output_padding=output_padding)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        conv = self.conv
        return conv_transpose(
            x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding, output_padding=conv.output_padding
        )


def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None, **geometry: Any) -> Tensor:
    """Return torch's transposed convolution of x (B, Cin, *S) with weight (Cin, Cout, *k) and bias (Cout,) or None.

    The gradient of the bias is computed apart: on a CPU (oneDNN 3.12, bfloat16) it takes up to eight times as long as
    that of the weights, and as a sum a tenth of it.
    """
    transposed = getattr(F, f"conv_transpose{x.ndim - 2}d")
    if bias is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return transposed(x, weight, bias, **geometry)
    return BiasGradient.apply(transposed(x, weight, bias.detach(), **geometry), bias)


class BiasGradient(torch.autograd.Function):
    """Pass on a map (B, C, *S) to which a bias (C,) was added without a gradient, and give the bias its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = bias.dtype
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return grad, grad.sum((0, *range(2, grad.ndim)), dtype=ctx.dtype)
