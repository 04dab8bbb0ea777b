"""Modules for the bottleneck that combine information from the complete image."""

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
    """Identity. x (B, C, *S) -> (B, C, *S)."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()


def positive_integers(option: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return an option as a tuple; raise UserError unless it is a list of positive integers."""
    if not isinstance(values, Sequence) or not values or any(not isinstance(n, int) or n < 1 for n in values):
        raise UserError(f"model.context: {option} must be positive integers such as [1, 2, 4], found {values!r}")
    return tuple(values)


def bin_means(x: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Return, for each b of ``bins``, the means over b bins along every axis. x (B, C, *S) -> (B, C, b, ...) each.

    The bins are those of adaptive average pooling: bin i of n pixels is ``[floor(i n / b), ceil((i + 1) n / b))``.
    Computed as a matrix product per axis: ``adaptive_avg_pool`` exports the traced size as a constant, which is wrong
    for other sizes, and has no deterministic backward pass on CUDA.
    """
    i = torch.cat([torch.arange(b, device=x.device) for b in bins])[:, None]
    num_bins = torch.tensor([b for b in bins for _ in range(b)], device=x.device)[:, None]
    means = [x] * len(bins)
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        j = torch.arange(n, device=x.device)[None, :]
        in_bin = ((j >= i * n // num_bins) & (j * num_bins < (i + 1) * n)).to(x.dtype)  # (sum of bins, n)
        weights = (in_bin / in_bin.sum(dim=1, keepdim=True)).split(list(bins))
        means = [F.linear(m.movedim(axis, -1), w).movedim(-1, axis) for m, w in zip(means, weights, strict=True)]
    return means


@CONTEXT.register("spp")
class SpatialPyramidPooling(nn.Module):
    """Spatial pyramid pooling with grids of 1, 2 and 4 bins along each axis. x (B, C, *S) -> (B, C, *S).

    As in PSPNet (Zhao et al. 2017), each grid is projected by a pointwise convolution, interpolated to the size of the
    bottleneck and concatenated with it, and a last convolution restores the number of channels. The projections have no
    normalization, because the grid of one bin has a single value per channel.
    Source: He et al. 2014, https://arxiv.org/abs/1406.4729 (there pooled to a fixed-length vector for a classifier).
    """

    def __init__(
        self, channels: int, spatial_dims: int, bins: Sequence[int] = (1, 2, 4), norm: str = "batch", act: str = "relu"
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
            F.interpolate(project(mean), size=size, mode=mode, align_corners=False)
            for mean, project in zip(bin_means(x, self.bins), self.project, strict=True)
        ]
        return self.fuse(torch.cat([x, *pyramid], dim=1))


@CONTEXT.register("ppm")
class PyramidPooling(SpatialPyramidPooling):
    """Pyramid pooling module of PSPNet with grids of 1, 2, 3 and 6 bins along each axis. x (B, C, *S) -> (B, C, *S).

    The same as ``spp`` with the four grids of the paper, each projected to a quarter of the channels.
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
    """Atrous spatial pyramid pooling with parallel dilated convolutions and the image mean. x (B, C, *S) -> (B, C, *S).

    The branches are concatenated with a pointwise convolution of the input and projected. ``(3^d R + R + 4) C b``
    weights for R rates and b = C / (R + 2) channels per branch. The default rates suit a bottleneck of about 16 pixels
    along each axis; DeepLab's 6, 12 and 18 are for 65, and rates above the size of the bottleneck only reach padding.
    Source: Chen et al. 2017, DeepLabv3, https://arxiv.org/abs/1706.05587.
    """

    def __init__(
        self, channels: int, spatial_dims: int, rates: Sequence[int] = (2, 4, 6), norm: str = "batch", act: str = "relu"
    ):
        super().__init__()
        positive_integers("rates", rates)
        branch = max(1, channels // (len(rates) + 2))
        shared = {"spatial_dims": spatial_dims, "norm": norm, "act": act}
        self.near = ConvNormAct(channels, branch, kernel_size=1, **shared)
        self.dilated = nn.ModuleList(ConvNormAct(channels, branch, dilation=rate, **shared) for rate in rates)
        self.image = conv(spatial_dims)(channels, branch, 1, bias=False)  # a single value cannot be normalized
        self.fuse = ConvNormAct(branch * (len(rates) + 2), channels, kernel_size=1, **shared)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.image(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.fuse(torch.cat([self.near(x), *(branch(x) for branch in self.dilated), mean], dim=1))
