"""Low-pass, then take every r-th sample: down operators that alias less (Zhang 2019, https://arxiv.org/abs/1904.11486)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import ConvNormAct, covering_kernel, odd_kernel
from unet.network.registry import DOWN


class Blur(nn.Module):
    """A binomial low-pass of each channel at the stage's stride. x (B, C, *rS) -> (B, C, *S).

    Args:
        operator: who asks, for messages.
        stride: axes of stride 1 are left alone.
        kernel_size: taps along every other axis; None: enough to be centred where it should.
        on_first: centre the kernel on the first sample of each window of r and not in its middle.
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
        self.padding = [amount for pair in reversed(list(zip(before, after, strict=True))) for amount in pair]
        self.register_buffer("kernel", binomial(taps), persistent=False)  # a constant, not a weight

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(F.pad(x, self.padding, mode="replicate"))

    def filter(self, x: Tensor) -> Tensor:
        """The low-pass itself, of x already padded."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, *self.kernel.shape)
        return getattr(F, f"conv{len(self.stride)}d")(x, kernel, stride=self.stride, groups=x.shape[1])


def binomial(taps: Sequence[int]) -> Tensor:
    """The outer product of one row of Pascal's triangle an axis, summing to one."""
    kernel = torch.ones(())
    for n in taps:
        row = torch.tensor([math.comb(n - 1, i) for i in range(n)], dtype=torch.float32)
        kernel = kernel[..., None] * (row / row.sum())
    return kernel


@DOWN.register("blur")
class BlurDown(Blur):
    """A binomial low-pass at the stage's stride. x (B, C, *rS) -> (B, C, *S).

    No parameters. As average pooling, with soft window edges: keeps what the coarse grid can carry, and lets shifts of
    the input through more evenly. ``kernel_size`` taps, by default r + 2 ([1, 3, 3, 1] / 8 at stride 2).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__("blur", stride, kernel_size)


@DOWN.register("max_blur")
class MaxBlurDown(nn.Module):
    """The maximum of the window at every sample, then a low-pass at the stage's stride. x (B, C, *rS) -> (B, C, *S).

    No parameters. Max pooling split in two: the maximum itself does not alias, taking every r-th value of it does.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        # The maximum at a sample looks r - 1 samples ahead: with a blur centred on the window's first sample, the two
        # together are centred in its middle.
        self.max_pool = getattr(nn, f"MaxPool{spatial_dims}d")(stride, stride=1)
        self.blur = Blur("max_blur", stride, kernel_size, on_first=True)
        ahead = [amount for r in reversed(stride) for amount in (0, r - 1)]
        self.padding = [p + more for p, more in zip(self.blur.padding, ahead, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        return self.blur.filter(self.max_pool(F.pad(x, self.padding, mode="replicate")))


@DOWN.register("strided_blur")
class StridedBlurDown(nn.Module):
    """A convolution at stride 1, normalised and activated, then a low-pass at the stage's stride.

    x (B, C, *rS) -> (B, C, *S). ``k^d C^2`` weights, applied at the fine resolution: prod(r) times the work of
    ``strided``, whose aliasing it avoids.
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
