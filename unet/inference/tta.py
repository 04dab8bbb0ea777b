"""Test-time augmentation: average the logits over flips and rotations of the image."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
View = tuple[bool, tuple[int, ...]]
"""Whether height and width are transposed, and the tensor axes that are flipped afterwards."""


def flips_and_rotations(spatial_dims: int) -> Iterator[View]:
    """Yield all flips; in 2-D all eight flips and rotations of a square (the group D4)."""
    for transposed in (False, True) if spatial_dims == 2 else (False,):
        for flips in product((False, True), repeat=spatial_dims):
            yield transposed, tuple(axis for axis, flip in enumerate(flips, start=2) if flip)


def with_tta(net: Network, spatial_dims: int) -> Network:
    """Return a function image (B, C, *S) -> logits (B, K, *S), averaged over :func:`flips_and_rotations`."""

    def average(image: Tensor) -> Tensor:
        total, count = torch.zeros(()), 0
        for transposed, axes in flips_and_rotations(spatial_dims):
            view = image.transpose(2, 3) if transposed else image
            logits = net(view.flip(axes)).float().flip(axes)
            total = (logits.transpose(2, 3) if transposed else logits) + total.to(logits.device)
            count += 1
        return total / count

    return average
