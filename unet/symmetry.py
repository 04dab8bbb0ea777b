"""A network asked about all mirrorings (and quarter turns) of an image, its answers averaged."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
View = tuple[bool, tuple[int, ...]]
"""Whether height and width change places, and then which axes are mirrored."""


def views(spatial_dims: int) -> Iterator[View]:
    """All mirrorings of the axes; of a picture with quarter turns too, the eight symmetries of a square (D4)."""
    for turned in (False, True) if spatial_dims == 2 else (False,):
        for mirrored in product((False, True), repeat=spatial_dims):
            yield turned, tuple(axis for axis, flip in enumerate(mirrored, start=2) if flip)


def symmetric(net: Network, spatial_dims: int) -> Network:
    """image (B, C, *S) -> logits (B, K, *S): the mean over :func:`views`, which changes with the image as it turns."""

    def average(image: Tensor) -> Tensor:
        total, count = torch.zeros(()), 0
        for turned, mirrored in views(spatial_dims):
            view = image.transpose(2, 3) if turned else image
            logits = net(view.flip(mirrored)).float().flip(mirrored)
            total = (logits.transpose(2, 3) if turned else logits) + total.to(logits.device)
            count += 1
        return total / count

    return average
