"""Content-aware upsampling: the interpolation weights or positions are computed from the features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import conv, full_precision, odd_kernel, positive_integer
from unet.network.ops.windows import join_windows, split_windows
from unet.network.registry import UP


def gather_neighbourhoods(x: Tensor, kernel_size: int) -> Tensor:
    """Return the neighbourhood of every pixel, with replication padding.

    x (B, C, *S) -> (B, C, K, *S) with K = kernel_size ** d.
    """
    size = x.shape[2:]
    x = F.pad(x, [kernel_size // 2] * (2 * len(size)), mode="replicate")
    for axis, n in enumerate(size):  # one axis after the other: few large slices instead of K small ones
        x = torch.stack([x.narrow(2 + 2 * axis, start, n) for start in range(kernel_size)], dim=2 + axis)
    return x.flatten(2, 1 + len(size))


def reassemble(x: Tensor, weights: Tensor, stride: Sequence[int], kernel_size: int) -> Tensor:
    """Return the weighted sum of the neighbourhood of every output pixel.

    x (B, C, *S), weights (B, K, P, *S) with P = prod(r) output pixels per input pixel -> (B, C, *rS).
    """
    return join_windows(torch.einsum("bck...,bkp...->bcp...", gather_neighbourhoods(x, kernel_size), weights), stride)


@UP.register("carafe")
class CarafeUp(nn.Module):
    """Weighted sum of the neighbourhood of every output pixel, with weights predicted from the features.

    x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``Cin Cout`` weights for the pointwise convolution, and ``3^d m prod(r) k^d`` for the prediction from m compressed
    channels. The pointwise convolution comes first, at the coarse resolution: it commutes with weights that sum to one.
    Borders have replication padding instead of the paper's zeros. Source: Wang et al. 2019, https://arxiv.org/abs/1905.02188.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stride: tuple[int, ...],
        kernel_size: int = 5,
        compressed: int = 64,
    ):
        super().__init__()
        odd_kernel("up=carafe", kernel_size)
        positive_integer("up=carafe", "compressed", compressed)
        self.stride, self.kernel_size = stride, kernel_size
        self.mix = conv(spatial_dims)(in_channels, out_channels, 1)
        num_positions, num_neighbours = math.prod(stride), kernel_size**spatial_dims
        self.predict = nn.Sequential(
            conv(spatial_dims)(in_channels, compressed, 1),
            conv(spatial_dims)(compressed, num_neighbours * num_positions, 3, padding=1),
            nn.Unflatten(1, (num_neighbours, num_positions)),
            nn.Softmax(dim=1),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return reassemble(self.mix(x), self.predict(x), self.stride, self.kernel_size)


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel. x (B, C, *S) -> (B, C, *S)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@UP.register("sapa")
class SimilarityUp(nn.Module):
    """Weighted sum of the neighbourhood of every output pixel, with weights from the similarity to the skip.

    x (B, Cin, *S), skip (B, Cout, *rS) -> (B, Cout, *rS).

    ``Cin Cout`` weights for the pointwise convolution, and ``(Cin + Cout) e`` for the two embeddings that are compared.
    Edges follow the skip, values come from the coarse features.
    Source: Lu et al. 2022, SAPA: similarity-aware point affiliation, https://arxiv.org/abs/2209.12866.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stride: tuple[int, ...],
        kernel_size: int = 5,
        embedding: int = 32,
    ):
        super().__init__()
        odd_kernel("up=sapa", kernel_size)
        positive_integer("up=sapa", "embedding", embedding)
        self.stride, self.kernel_size = stride, kernel_size
        make = conv(spatial_dims)
        self.mix = make(in_channels, out_channels, 1)
        self.key = nn.Sequential(PixelNorm(in_channels), make(in_channels, embedding, 1, bias=False))
        self.query = nn.Sequential(PixelNorm(out_channels), make(out_channels, embedding, 1))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        queries = split_windows(self.query(skip), self.stride)  # (B, E, P, *S)
        keys = gather_neighbourhoods(self.key(x), self.kernel_size)  # (B, E, K, *S)
        weights = torch.einsum("bek...,bep...->bkp...", keys, queries).softmax(dim=1)
        return reassemble(self.mix(x), weights, self.stride, self.kernel_size)


@UP.register("dysample")
class DySampleUp(nn.Module):
    """Linear interpolation at positions with learned offsets. x (B, Cin, *S), skip unused -> (B, Cout, *rS).

    ``Cin Cout`` weights for the pointwise convolution, and ``Cin g d prod(r)`` for the offsets of g groups of channels,
    which are initialized near zero (linear interpolation). An offset of 1 is a quarter of a coarse pixel.
    Source: Liu et al. 2023, Learning to upsample by learning to sample, https://arxiv.org/abs/2308.15085.
    """

    offset_scale = 0.25

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...], groups: int = 4
    ):
        super().__init__()
        self.stride = stride
        self.groups = math.gcd(positive_integer("up=dysample", "groups", groups), out_channels)
        self.mix = conv(spatial_dims)(in_channels, out_channels, 1)
        self.offset = conv(spatial_dims)(in_channels, self.groups * spatial_dims * math.prod(stride), 1)
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        dims, size = len(self.stride), x.shape[2:]
        offset = self.offset(x).float().unflatten(1, (self.groups * dims, -1)) * self.offset_scale
        offset = join_windows(offset, self.stride).unflatten(1, (self.groups, dims)).flatten(0, 1)  # (B g, d, *rS)
        coordinates = []  # along each axis, in coarse pixels from the edge of the first
        for axis, (n, r) in enumerate(zip(size, self.stride, strict=True)):
            centres = (torch.arange(n * r, device=x.device) + 0.5) / r
            position = offset[:, axis] + centres.view(-1, *[1] * (dims - 1 - axis))
            coordinates.append(position * (2 / n) - 1)  # -1 and 1 are the outer edges
        grid = torch.stack(coordinates[::-1], dim=-1)  # grid_sample expects the last axis first
        values = self.mix(x).unflatten(1, (self.groups, -1)).flatten(0, 1)
        fine = grid_sample(values.float(), grid).to(values.dtype)
        return fine.unflatten(0, (-1, self.groups)).flatten(1, 2)


def grid_sample(values: Tensor, grid: Tensor) -> Tensor:
    """Sample 1, 2 or 3 axes linearly. values (N, C, *S), grid (N, *S', d) in -1 to 1 -> (N, C, *S').

    A sequence is sampled as an image of height 1. Computed in float32: bfloat16 has only 8 bits for a position.
    """
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
    with full_precision(values):
        if values.ndim > 3:
            return F.grid_sample(values, grid, **options)
        grid = torch.cat([grid, torch.zeros_like(grid)], dim=-1)[:, None]
        return F.grid_sample(values[:, :, None], grid, **options)[:, :, 0]
