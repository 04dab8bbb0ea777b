"""Convolutions, normalizations and activations by name, the convolution block, and checks of operators' options."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.errors import UserError, did_you_mean


def conv(spatial_dims: int) -> Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    """Return the convolution class for 1, 2 or 3 spatial axes."""
    return getattr(nn, f"Conv{spatial_dims}d")


def odd_kernel(operator: str, kernel_size: int) -> int:
    """Return ``kernel_size``; raise UserError unless it is odd, as a convolution that keeps the size requires."""
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(f"model.{operator}: kernel_size must be a positive odd integer, found {kernel_size!r}")
    return kernel_size


def positive_integer(operator: str, option: str, value: int) -> int:
    """Return the value of an operator's option; raise UserError unless it is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"model.{operator}: {option} must be an integer of at least 1, found {value!r}")
    return value


def covering_kernel(operator: str, kernel_size: int, stride: Sequence[int]) -> int:
    """Return ``kernel_size``; raise UserError if it is smaller than the stride and would skip pixels."""
    if not isinstance(kernel_size, int) or kernel_size < max(stride):
        raise UserError(
            f"model.{operator}: kernel_size must be an integer of at least the stride ({max(stride)}), "
            f"found {kernel_size!r}: a smaller kernel skips pixels"
        )
    return kernel_size


def with_dense_gradient(x: Tensor) -> Tensor:
    """Return x, whose gradient will be copied to be dense.

    The gradient of a concatenated tensor is a slice, which the backward passes of convolutions and sums read slowly.
    """
    if not x.requires_grad or torch.compiler.is_compiling():
        return x
    x = x.view_as(x)
    x.register_hook(torch.clone)
    return x


def full_precision(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast, for values that need more than 8 bits, such as powers and positions."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)  # meta has no autocast


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm with up to 32 groups of equal size and at least two channels.

    A group of one channel would be instance norm, which cannot normalize a 1 x 1 bottleneck.
    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494.
    """
    return nn.GroupNorm(next((groups for groups in (32, 16, 8, 4, 2) if channels % (2 * groups) == 0), 1), channels)


class InstanceNorm(nn.Module):
    """Normalize every channel of every sample over its positions, then scale and shift it. x (B, C, *S).

    In training on a CPU this is a batch norm of every sample: torch's instance norm copies channels-last tensors to
    channels-first ones and back, which takes up to 40 % of a step.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        return torch.cat([F.batch_norm(y, None, None, self.weight, self.bias, training=True) for y in x.split(1)])


NORMS = {
    "batch": lambda channels, spatial_dims: getattr(nn, f"BatchNorm{spatial_dims}d")(channels),
    "instance": lambda channels, spatial_dims: InstanceNorm(channels),
    "group": lambda channels, spatial_dims: group_norm(channels),
    "none": lambda channels, spatial_dims: nn.Identity(),
}
ACTS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": lambda: nn.GELU(),
    "silu": lambda: nn.SiLU(inplace=True),
}


def look_up(table: dict, key: str, name: str):
    """Return ``table[name]``; raise UserError with the valid values of ``model.<key>`` if the name is unknown."""
    if not isinstance(name, str) or name not in table:
        raise UserError(f"model.{key}: unknown {name!r}{did_you_mean(str(name), table)} (valid: {', '.join(table)})")
    return table[name]


class ConvNormAct(nn.Sequential):
    """Convolution, normalization and activation. x (B, Cin, *S) -> (B, Cout, *S'), S' the convolution's output size.

    The convolution has a bias only without normalization, which would cancel it. ``act`` None: no activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        kernel_size: int = 3,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | None = None,
        norm: str = "batch",
        act: str | None = "relu",
        dilation: int = 1,
    ):
        padding = dilation * (kernel_size - 1) // 2 if padding is None else padding
        bias = norm == "none"
        super().__init__(
            conv(spatial_dims)(in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, bias=bias),
            look_up(NORMS, "norm", norm)(out_channels, spatial_dims),
            *([] if act is None else [look_up(ACTS, "act", act)()]),
        )


class ConvBlock(nn.Sequential):
    """Two convolutions of width 3, each with normalization and activation. x (B, Cin, *S) -> (B, Cout, *S)."""

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, norm: str, act: str, dropout: float = 0.0
    ):
        super().__init__(
            ConvNormAct(in_channels, out_channels, spatial_dims, norm=norm, act=act),
            ConvNormAct(out_channels, out_channels, spatial_dims, norm=norm, act=act),
        )
        if dropout:
            self.append(getattr(nn, f"Dropout{spatial_dims}d")(dropout))


class ResidualBlock(nn.Module):
    """:class:`ConvBlock` with a shortcut, added before the last activation. x (B, Cin, *S) -> (B, Cout, *S).

    The shortcut is a pointwise convolution with normalization if the channels change. Source: He et al. 2016,
    https://arxiv.org/abs/1512.03385.
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, norm: str, act: str, dropout: float = 0.0
    ):
        super().__init__()
        self.first = ConvNormAct(in_channels, out_channels, spatial_dims, norm=norm, act=act)
        self.second = ConvNormAct(out_channels, out_channels, spatial_dims, norm=norm, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = ConvNormAct(in_channels, out_channels, spatial_dims, 1, norm=norm, act=None)
        self.act = look_up(ACTS, "act", act)()
        self.dropout = getattr(nn, f"Dropout{spatial_dims}d")(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.act(self.second(self.first(x)) + self.shortcut(x)))


BLOCKS: dict[str, type[nn.Module]] = {"plain": ConvBlock, "residual": ResidualBlock}
"""The convolutions of a level by name, values of ``model.block``."""
