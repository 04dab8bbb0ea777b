"""Rearrangement of features into non-overlapping windows and back."""

from collections.abc import Sequence

from torch import Tensor


def split_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Gather the pixels of every window. x (B, C, *rS) -> (B, C, P, *S) with P = prod(r), last axis fastest."""
    dims = len(stride)
    for axis, r in enumerate(stride):
        x = x.unflatten(2 + 2 * axis, (-1, r))  # (B, C, S1, r1, S2, r2, ...)
    return x.permute(0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)).flatten(2, 1 + dims)


def join_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Invert :func:`split_windows`. x (B, C, P, *S) -> (B, C, *rS)."""
    dims = len(stride)
    x = x.unflatten(2, tuple(stride))  # (B, C, r1, r2, ..., S1, S2, ...)
    x = x.permute(0, 1, *[n for axis in range(dims) for n in (2 + dims + axis, 2 + axis)])
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return x
