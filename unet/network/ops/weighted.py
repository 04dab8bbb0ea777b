"""Pooling between the average and the maximum, with fixed or learned weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError
from unet.network.blocks import NORMS, conv, full_precision, look_up
from unet.network.ops.windows import split_windows
from unet.network.registry import DOWN


@DOWN.register("soft")
class SoftDown(nn.Module):
    """Average of every window with softmax weights. x (B, C, *rS) -> (B, C, *S).

    No parameters. Larger values have larger weights; unlike in ``max``, every pixel receives a gradient.
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
    """Generalized mean of every window with a learned exponent per channel. x (B, C, *rS) -> (B, C, *S).

    An exponent of 1 is the average, infinity the maximum. Negative values are set to zero. C parameters, initialized
    with ``p``.
    Source: Gulcehre et al. 2014, https://arxiv.org/abs/1311.1780; as global pooling, Radenovic et al. 2018,
    https://arxiv.org/abs/1711.02512.
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
            maximum = windows.amax(dim=2)  # divided out, so that no power overflows
            mean = ((windows / maximum.unsqueeze(2)) ** p.unsqueeze(1)).mean(dim=2)
            return (maximum * mean ** (1 / p)).to(x.dtype)


@DOWN.register("mixed")
class MixedDown(nn.Module):
    """Learned mixture of max and average pooling, one weight per channel. x (B, C, *rS) -> (B, C, *S).

    C parameters, initialized with equal weights of both.
    Source: Lee et al. 2016, mixed max-average pooling, https://arxiv.org/abs/1509.08985 (there one weight per layer).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...]):
        super().__init__()
        self.stride = stride
        self.share = nn.Parameter(torch.zeros(channels, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        pools = (getattr(F, f"{kind}_pool{len(self.stride)}d") for kind in ("avg", "max"))
        average, maximum = (pool(x, self.stride).to(x.dtype) for pool in pools)  # autocast pools in float32
        return torch.lerp(average, maximum, self.share.sigmoid().to(x.dtype))


@DOWN.register("lip")
class LocalImportanceDown(nn.Module):
    """Average of every window with weights learned by a pointwise convolution. x (B, C, *rS) -> (B, C, *S).

    ``C^2`` parameters and those of the norm. The ratio of two weights is at most e^12, so that the result lies between
    the average and the most important value of the window.
    Source: Gao et al. 2019, Local importance-based pooling, https://arxiv.org/abs/1908.04156 (with instance norm).
    """

    limit = 12.0

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], norm: str = "batch"):
        super().__init__()
        self.stride = stride
        mix = conv(spatial_dims)(channels, channels, 1, bias=norm == "none")
        self.importance = nn.Sequential(mix, look_up(NORMS, "norm", norm)(channels, spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        weights = split_windows(self.limit * self.importance(x).sigmoid(), self.stride).softmax(dim=2)
        return (split_windows(x, self.stride) * weights).sum(dim=2)
