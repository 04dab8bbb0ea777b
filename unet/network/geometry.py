"""Padding, cropping, the sizes of levels, and counts of parameters and FLOPs."""

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unet.errors import UserError

Window = tuple[slice, ...]
"""A part of an image: slices with start and stop along its first axes; any other axes are whole."""


def times(values: Iterable[float]) -> str:
    """Format a size as text: ``361 x 481``; ``all`` for infinity."""
    return " x ".join("all" if math.isinf(value) else f"{value:.0f}" for value in values)


def size_range(low: Iterable[float], high: Iterable[float]) -> str:
    """Format sizes from ``low`` to ``high`` along each axis: ``1 x 1 x 1.5 to 3``."""
    return " x ".join(f"{a:.3g} to {b:.3g}" if b > a else f"{a:.3g}" for a, b in zip(low, high, strict=True))


def same_padding(kernel_size: int, stride: Sequence[int]) -> tuple[int, ...]:
    """Return the padding of each axis for which a kernel of ``kernel_size`` at ``stride`` divides the size exactly.

    From ``floor((n + 2p - k) / r) + 1 = n / r``: the smallest p with ``k - r <= 2p < k``.

    Raises:
        UserError: the kernel size is even on an axis of stride 1, for which no such p exists.
    """
    if kernel_size % 2 == 0 and 1 in stride:
        raise UserError(
            f"kernel_size {kernel_size} cannot keep the size of an axis of stride 1 (stride {tuple(stride)}): "
            f"use an odd kernel_size"
        )
    return tuple(max(0, (kernel_size - r + 1) // 2) for r in stride)


def padding_to_multiple(size: Sequence[int], multiple: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding (before, after) of each axis that makes every size a multiple; an odd pixel goes after.

    The padded size is written as m times a quotient, so that torch.export knows that it is divisible and adds no
    conditions on the input size. ``before`` does not use it: half of ``m q - n`` would be exported as a division of
    ``-n``, which ONNX rounds in the other direction.
    """
    padding = []
    for n, m in zip(size, multiple, strict=True):
        padded = (n + m - 1) // m * m
        before = -n % m // 2
        padding.append((before, padded - n - before))
    return padding


def is_empty(padding: Sequence[tuple[int, int]]) -> bool:
    """Return whether no pixel is padded; False while the network is traced for other sizes too."""
    return not torch.compiler.is_compiling() and not any(map(any, padding))


def pad(x: Tensor, padding: Sequence[tuple[int, int]]) -> Tensor:
    """Pad x (B, C, *S) by replication, which unlike reflection works for any size."""
    if is_empty(padding):
        return x
    return F.pad(x, [amount for axis in reversed(padding) for amount in axis], mode="replicate")


def crop(x: Tensor, padding: Sequence[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """Undo :func:`pad`: return the window of ``size`` that starts after the padding ``before`` of each axis.

    The result is a copy: whether a view is contiguous depends on the padding, and torch.export would turn the result
    for the traced input into a condition on every later size.
    """
    if is_empty(padding):
        return x
    for axis, ((before, _), n) in enumerate(zip(padding, size, strict=True), start=2):
        x = torch.narrow_copy(x, axis, before, n)
    return x


def level_sizes(size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the spatial size at every level, fine to coarse, of an input of ``size`` after padding."""
    total = [math.prod(axis) for axis in zip(*strides, strict=True)] or [1] * len(size)
    sizes = [tuple(n + sum(p) for n, p in zip(size, padding_to_multiple(size, total), strict=True))]
    for stride in strides:
        sizes.append(tuple(n // r for n, r in zip(sizes[-1], stride, strict=True)))
    return sizes


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_flops(module: nn.Module, shape: Sequence[int]) -> int:
    """Return the floating-point operations of one forward pass on ``shape`` (B, C, *S); a multiply-add counts as two.

    Counted by torch with a copy of the module on the meta device: nothing is computed.
    """
    meta_module = copy.deepcopy(module).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta_module(torch.empty(*shape, device="meta"))
    return counter.get_total_flops()
