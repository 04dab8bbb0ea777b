"""Modules on the bottleneck that let every place see the whole image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.blocks import ConvNormAct, conv
from unet.errors import UserError
from unet.ops.interpolation import LINEAR
from unet.registry import CONTEXT


@CONTEXT.register("none")
class NoContext(nn.Identity):
    """The bottleneck as it is. x (B, C, *S) -> (B, C, *S)."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()


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

    He et al. 2014 (https://arxiv.org/abs/1406.4729) pool to a fixed-length vector for a classifier; here, as in PSPNet
    (Zhao et al. 2017, https://arxiv.org/abs/1612.01105), each grid is narrowed by a 1-wide convolution, interpolated
    back to the bottleneck's size and joined to it; a last convolution restores the width. Right at any size.
    The narrowing has no normalisation: one bin of one image has nothing to normalise over.
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
        if not isinstance(bins, Sequence) or not bins or any(not isinstance(b, int) or b < 1 for b in bins):
            raise UserError(f"model.context=spp: bins must be positive integers such as [1, 2, 4], found {bins!r}")
        self.bins = tuple(bins)
        narrow = max(1, channels // len(self.bins))
        self.project = nn.ModuleList(conv(spatial_dims)(channels, narrow, 1) for _ in self.bins)
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
