"""Modules on the bottleneck that let every place see the whole image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError
from unet.network.blocks import ConvNormAct, conv
from unet.network.ops.interpolation import LINEAR
from unet.network.registry import CONTEXT


@CONTEXT.register("none")
class NoContext(nn.Identity):
    """The bottleneck as it is. x (B, C, *S) -> (B, C, *S)."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()


def positive_integers(option: str, values: Sequence[int]) -> tuple[int, ...]:
    """An option of several sizes, refused unless each is a whole number above 0."""
    if not isinstance(values, Sequence) or not values or any(not isinstance(n, int) or n < 1 for n in values):
        raise UserError(f"model.context: {option} must be positive integers such as [1, 2, 4], found {values!r}")
    return tuple(values)


def bin_means(x: Tensor, num_bins: int) -> Tensor:
    """Means over a grid of ``num_bins`` bins along every spatial axis. x (B, C, *S) -> (B, C, num_bins, ...).

    The bins are those of adaptive average pooling: bin i of n samples is ``[floor(i n / b), ceil((i + 1) n / b))``.
    Written as one small matrix product per axis because ``adaptive_avg_pool`` exports with the traced size baked in,
    which is silently wrong at any other, and has no deterministic backward on CUDA.
    """
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        i = torch.arange(num_bins, device=x.device)[:, None]
        j = torch.arange(n, device=x.device)[None, :]
        inside = ((j >= i * n // num_bins) & (j * num_bins < (i + 1) * n)).to(x.dtype)  # (b, n)
        mean = inside / inside.sum(dim=1, keepdim=True)
        x = (x.movedim(axis, -1) @ mean.T).movedim(-1, axis)
    return x


@CONTEXT.register("spp")
class SpatialPyramidPooling(nn.Module):
    """Means over coarse grids (1, 2, 4 bins an axis), projected, brought back and concatenated. Keeps (B, C, *S).

    Source: He et al. 2014, https://arxiv.org/abs/1406.4729, who pool to a fixed-length vector for a classifier; here,
    as in PSPNet (Zhao et al. 2017), each grid is narrowed by a 1-wide convolution, interpolated back to the size of the
    bottleneck and joined to it; a last convolution restores the width. Right at any size.
    The narrowing has no normalisation, as one bin of one image has nothing to normalise over, and no bias, which the
    last convolution's would absorb.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        bins: Sequence[int] = (1, 2, 4),
        norm: str = "batch",
        act: str = "relu",
    ):
        super().__init__()
        self.bins = positive_integers("bins", bins)
        narrow = max(1, channels // len(self.bins))
        self.project = nn.ModuleList(conv(spatial_dims)(channels, narrow, 1, bias=False) for _ in self.bins)
        self.fuse = ConvNormAct(
            channels + narrow * len(self.bins), channels, spatial_dims, kernel_size=1, norm=norm, act=act
        )

    def forward(self, x: Tensor) -> Tensor:
        mode, size = LINEAR[x.ndim - 2], x.shape[2:]
        pyramid = [
            F.interpolate(project(bin_means(x, b)), size=size, mode=mode, align_corners=False)
            for b, project in zip(self.bins, self.project, strict=True)
        ]
        return self.fuse(torch.cat([x, *pyramid], dim=1))


@CONTEXT.register("ppm")
class PyramidPooling(SpatialPyramidPooling):
    """Means over the grids of PSPNet's pyramid pooling module (1, 2, 3, 6 bins an axis). Keeps (B, C, *S).

    As ``spp``, with the paper's four grids and so a quarter of the width for each.
    Source: Zhao et al. 2017, https://arxiv.org/abs/1612.01105.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        norm: str = "batch",
        act: str = "relu",
    ):
        super().__init__(channels, spatial_dims, bins, norm, act)


@CONTEXT.register("aspp")
class AtrousSpatialPyramidPooling(nn.Module):
    """Dilated 3-wide convolutions at several rates, a 1-wide one and the image's mean, concatenated and projected.

    Keeps (B, C, *S). ``(3^d R + R + 4) C b`` weights for R rates and b = C / (R + 2) channels a branch. A rate
    beyond the bottleneck's size sees nothing but padding on either side, so the rates default to 2, 4 and 6, for a
    bottleneck of 16 samples an axis, where DeepLab's 6, 12 and 18 were for 65.
    Source: Chen et al. 2017, DeepLabv3, https://arxiv.org/abs/1706.05587.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        rates: Sequence[int] = (2, 4, 6),
        norm: str = "batch",
        act: str = "relu",
    ):
        super().__init__()
        positive_integers("rates", rates)
        branch = max(1, channels // (len(rates) + 2))
        same = {"spatial_dims": spatial_dims, "norm": norm, "act": act}
        self.near = ConvNormAct(channels, branch, kernel_size=1, **same)
        self.dilated = nn.ModuleList(ConvNormAct(channels, branch, dilation=rate, **same) for rate in rates)
        self.image = conv(spatial_dims)(channels, branch, 1, bias=False)  # one value has nothing to normalise over
        self.fuse = ConvNormAct(branch * (len(rates) + 2), channels, kernel_size=1, **same)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.image(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.fuse(torch.cat([self.near(x), *(branch(x) for branch in self.dilated), mean], dim=1))
