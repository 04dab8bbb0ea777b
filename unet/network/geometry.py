"""Compute sizes: padding to a multiple, cropping, the sizes of levels, parameters and FLOPs."""

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unet.errors import UserError

Stride = int | Sequence[int]


def per_axis(stride: Stride, spatial_dims: int) -> tuple[int, ...]:
    """Return a stride as one integer per spatial axis: ``2`` -> ``(2, 2)``, ``(1, 2, 2)`` as it is."""
    return (stride,) * spatial_dims if isinstance(stride, int) else tuple(stride)


def times(values: Iterable[float]) -> str:
    """Format sizes: ``361 x 481``; ``all`` for an infinite one."""
    return " x ".join("all" if math.isinf(value) else f"{value:.0f}" for value in values)


def same_padding(kernel_size: int, stride: Sequence[int]) -> tuple[int, ...]:
    """Return the padding per axis with which ``kernel_size`` at ``stride`` r turns n = r m samples into exactly m.

    From ``floor((n + 2p - k) / r) + 1``: any p with ``k - r <= 2p < k`` does; the smallest is taken.

    Raises:
        UserError: an even window on an axis of stride 1, for which no such p exists.
    """
    if kernel_size % 2 == 0 and 1 in stride:
        raise UserError(
            f"kernel_size {kernel_size} cannot keep the size of an axis of stride 1 (stride {tuple(stride)}): "
            f"give an odd kernel_size there"
        )
    return tuple(max(0, (kernel_size - r + 1) // 2) for r in stride)


def padding_to_multiple(size: Sequence[int], multiple: Sequence[int]) -> list[tuple[int, int]]:
    """Return (before, after) for each axis, so that every size becomes a multiple; the odd sample goes after.

    With a size unknown at export, the padded size is m times something to torch only if written so: no condition on
    the input then arises where it is halved. ``before`` is kept free of it, because half of ``m q - n`` becomes a
    division of ``-n``, which ONNX rounds the other way.
    """
    padding = []
    for n, m in zip(size, multiple, strict=True):
        padded = (n + m - 1) // m * m
        before = -n % m // 2
        padding.append((before, padded - n - before))
    return padding


def pad(x: Tensor, padding: Sequence[tuple[int, int]]) -> Tensor:
    """Pad x (B, C, *S) with its border samples. Replication, unlike reflection, has no smallest size."""
    flat = [amount for axis in reversed(padding) for amount in axis]
    return F.pad(x, flat, mode="replicate")


def crop(x: Tensor, padding: Sequence[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """Undo :func:`pad`: the window of ``size`` that starts after each axis's ``before``.

    Copied, not viewed: whether a view is contiguous depends on whether there was padding, and torch.export would make
    the traced input's answer a condition on every later size.
    """
    for axis, ((before, _), n) in enumerate(zip(padding, size, strict=True), start=2):
        x = torch.narrow_copy(x, axis, before, n)
    return x


def level_sizes(size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the spatial size at every level, fine to coarse, for an input of ``size`` once padded."""
    total = [math.prod(axis) for axis in zip(*strides, strict=True)] or [1] * len(size)
    sizes = [tuple(n + sum(p) for n, p in zip(size, padding_to_multiple(size, total), strict=True))]
    for stride in strides:
        sizes.append(tuple(n // r for n, r in zip(sizes[-1], stride, strict=True)))
    return sizes


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_flops(module: nn.Module, shape: Sequence[int]) -> int:
    """Count the floating-point operations of one forward pass on ``shape`` (B, C, *S); a multiply-add counts two.

    Counted by torch on the meta device: nothing is computed, and the module itself is left alone.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.empty(*shape, device="meta"))
    return counter.get_total_flops()
