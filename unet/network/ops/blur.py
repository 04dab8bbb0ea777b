"""Downsampling with a low-pass filter against aliasing (Zhang 2019, https://arxiv.org/abs/1904.11486)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import ConvNormAct, covering_kernel, odd_kernel
from unet.network.registry import DOWN


class Blur(nn.Module):
    """Binomial low-pass filter of each channel with the stage's stride. x (B, C, *rS) -> (B, C, *S).

    Axes of stride 1 are not filtered; ``kernel_size`` taps along every other, by default the smallest centred kernel.
    With ``on_first`` it is centred on the first pixel of each window instead of its middle.
    """

    kernel: Tensor

    def __init__(self, operator: str, stride: tuple[int, ...], kernel_size: int | None = None, on_first: bool = False):
        super().__init__()
        if kernel_size is not None:
            covering_kernel(f"down={operator}", kernel_size, stride)
        self.stride = stride
        taps = [1 if r == 1 else kernel_size or (r | 1 if on_first else r + 2) for r in stride]
        before = [(k - (1 if on_first else r)) // 2 for k, r in zip(taps, stride, strict=True)]
        after = [max(0, k - r - b) for k, r, b in zip(taps, stride, before, strict=True)]
        self.padding = [n for sides in reversed(list(zip(before, after, strict=True))) for n in sides]
        kernel = torch.ones(())  # the outer product of a row of Pascal's triangle for each axis
        for n in taps:
            kernel = kernel[..., None] * torch.tensor([math.comb(n - 1, i) / 2 ** (n - 1) for i in range(n)])
        self.register_buffer("kernel", kernel, persistent=False)  # a constant, not a weight

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(F.pad(x, self.padding, mode="replicate"))

    def filter(self, x: Tensor) -> Tensor:
        """Filter x, which is already padded."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, *self.kernel.shape)
        return getattr(F, f"conv{len(self.stride)}d")(x, kernel, stride=self.stride, groups=x.shape[1])


@DOWN.register("blur")
class BlurDown(Blur):
    """Binomial low-pass filter with the stage's stride. x (B, C, *rS) -> (B, C, *S).

    No parameters. Aliases less than average pooling, so that small shifts of the input change the output less.
    ``kernel_size`` taps, by default r + 2 ([1, 3, 3, 1] / 8 at stride 2).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__("blur", stride, kernel_size)


@DOWN.register("max_blur")
class MaxBlurDown(nn.Module):
    """Max pooling at stride 1, then a low-pass filter with the stage's stride. x (B, C, *rS) -> (B, C, *S).

    No parameters. In max pooling, the maximum itself does not alias; the subsampling does, and is filtered here.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        # The maximum covers r - 1 pixels after its position: with a blur centred on the first pixel of a window, the
        # result is centred in the middle of the window.
        self.max_pool = getattr(nn, f"MaxPool{spatial_dims}d")(stride, stride=1)
        self.blur = Blur("max_blur", stride, kernel_size, on_first=True)
        pool_padding = [n for r in reversed(stride) for n in (0, r - 1)]
        self.padding = [a + b for a, b in zip(self.blur.padding, pool_padding, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        return self.blur.filter(self.max_pool(F.pad(x, self.padding, mode="replicate")))


@DOWN.register("strided_blur")
class StridedBlurDown(nn.Module):
    """Convolution at stride 1, then a low-pass filter with the stage's stride. x (B, C, *rS) -> (B, C, *S).

    The convolution has normalization and activation. ``k^d C^2`` weights, applied at the fine resolution: prod(r) times
    the FLOPs of ``strided``, with less aliasing.
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
        odd_kernel("down=strided_blur", kernel_size)
        self.block = ConvNormAct(channels, channels, spatial_dims, kernel_size, norm=norm, act=act)
        self.blur = Blur("strided_blur", stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(self.block(x))
