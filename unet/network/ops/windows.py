"""The tensor of windows that tile a map, and its inverse: what pooling, subpixel and wavelet operators share."""

from collections.abc import Sequence

from torch import Tensor


def split_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The samples of every window side by side. x (B, C, *rS) -> (B, C, P, *S) with P = prod(r), last axis fastest."""
    dims = len(stride)
    for axis, r in enumerate(stride):
        x = x.unflatten(2 + 2 * axis, (-1, r))  # (B, C, S1, r1, S2, r2, ...)
    places = [3 + 2 * axis for axis in range(dims)]
    sizes = [2 + 2 * axis for axis in range(dims)]
    return x.permute(0, 1, *places, *sizes).flatten(2, 1 + dims)


def join_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The inverse of :func:`split_windows`. x (B, C, P, *S) -> (B, C, *rS)."""
    dims = len(stride)
    x = x.unflatten(2, tuple(stride))  # (B, C, r1, r2, ..., S1, S2, ...)
    pairs = [place for axis in range(dims) for place in (2 + dims + axis, 2 + axis)]
    x = x.permute(0, 1, *pairs)
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return x
