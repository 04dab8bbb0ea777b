"""Pooling whose weights depend on the values: between the mean and the maximum, fixed or learned."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError
from unet.network.blocks import NORMS, choose, conv, full_precision
from unet.network.ops.windows import split_windows
from unet.network.registry import DOWN


@DOWN.register("soft")
class SoftDown(nn.Module):
    """The mean of every window under softmax weights: larger values count more. x (B, C, *rS) -> (B, C, *S).

    No parameters. Keeps strong responses as ``max`` does, and sends a gradient to every sample as ``avg`` does.
    Source: Stergiou et al. 2021, SoftPool, https://arxiv.org/abs/2101.00440.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...]):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        windows = split_windows(x, self.stride)
        return (windows * windows.softmax(dim=2)).sum(dim=2)


@DOWN.register("gem")
class GeneralizedMeanDown(nn.Module):
    """The power mean of every window, its exponent learned per channel: 1 is the mean, infinity the maximum.

    x (B, C, *rS), negative values counting as zero -> (B, C, *S). C parameters, starting at ``p`` = 3.
    Source: Gulcehre et al. 2014, https://arxiv.org/abs/1311.1780; over whole maps, and so named, Radenovic et al.
    2018, https://arxiv.org/abs/1711.02512.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], p: float = 3.0):
        super().__init__()
        if not isinstance(p, int | float) or not p >= 1:
            raise UserError(f"model.down=gem: p must be a number of at least 1, found {p!r}")
        self.stride = stride
        self.p = nn.Parameter(torch.full((channels, *[1] * spatial_dims), float(p)))

    def forward(self, x: Tensor) -> Tensor:
        p = self.p.clamp(min=1.0)
        with full_precision(x):
            windows = split_windows(x.float().clamp(min=1e-6), self.stride)
            # Relative to the window's maximum, so that no power overflows.
            top = windows.amax(dim=2)
            mean = ((windows / top.unsqueeze(2)) ** p.unsqueeze(1)).mean(dim=2)
            return (top * mean ** (1 / p)).to(x.dtype)


@DOWN.register("mixed")
class MixedDown(nn.Module):
    """A learned mixture of maximum and mean, one share per channel, half and half at first.

    x (B, C, *rS) -> (B, C, *S). C parameters. Where the share ends up tells which of the two the data wanted.
    Source: Lee et al. 2016, mixed max-average pooling, https://arxiv.org/abs/1509.08985 (there one share a layer).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...]):
        super().__init__()
        self.stride = stride
        self.share = nn.Parameter(torch.zeros(channels, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        pools = (getattr(F, f"{kind}_pool{len(self.stride)}d") for kind in ("avg", "max"))
        mean, top = (pool(x, self.stride).to(x.dtype) for pool in pools)  # autocast widens
        return torch.lerp(mean, top, self.share.sigmoid().to(x.dtype))


@DOWN.register("lip")
class LocalImportanceDown(nn.Module):
    """The mean of every window under learned weights: a 1-wide convolution says how much each sample matters.

    x (B, C, *rS) -> (B, C, *S). ``C^2`` weights and those of the norm. A sample may come to count e^12 times as much as
    its neighbour: between ``avg`` and the ``max`` of whatever the network finds important.
    Source: Gao et al. 2019, Local importance-based pooling, https://arxiv.org/abs/1908.04156 (with instance norm).
    """

    limit = 12.0

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], norm: str = "batch"):
        super().__init__()
        self.stride = stride
        mix = conv(spatial_dims)(channels, channels, 1, bias=norm == "none")
        self.importance = nn.Sequential(mix, choose(NORMS, "norm", norm)(channels, spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        weights = split_windows(self.limit * self.importance(x).sigmoid(), self.stride).softmax(dim=2)
        return (split_windows(x, self.stride) * weights).sum(dim=2)
