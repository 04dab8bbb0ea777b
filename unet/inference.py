"""Prediction of images that are too large to go through a network at once: overlapping tiles, blended."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from unet.errors import UserError


def check_tile(tile: Sequence[int] | None, overlap: float, spatial_dims: int) -> None:
    """Raise UserError unless ``tile`` is None or a size along each spatial axis, and ``overlap`` a share below 1."""
    if tile is not None and not (
        isinstance(tile, Sequence)
        and len(tile) == spatial_dims
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in tile)
    ):
        raise UserError(
            f"data.eval_tile: expected null or {spatial_dims} integers of at least 1, one an axis, found {tile!r}"
        )
    if not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise UserError(f"data.eval_overlap: expected a share of at least 0 and below 1, found {overlap!r}")


@torch.no_grad()
def predict(
    net: Callable[[Tensor], Tensor], image: Tensor, tile: Sequence[int] | None = None, overlap: float = 0.25
) -> Tensor:
    """image (B, C, *S) -> logits (B, K, *S) of a network that is shown at most a tile at a time.

    Tiles lie evenly and overlap by at least ``overlap`` of their size; where they do, their logits are averaged with
    weights that rise linearly from a tile's rim, where the network knows least, to its middle: no seams. Memory: the
    logits of the image in float32, whatever the network computes in, and the network on one tile. An image that fits
    into a tile goes through at once, and the result is the network's own.

    Args:
        net: image -> logits, for every size.
        image: the batch.
        tile: size along each spatial axis; None: the whole image.
        overlap: share of a tile, 0 to below 1.
    """
    size = image.shape[2:]
    tile = size if tile is None else [min(n, m) for n, m in zip(tile, size, strict=True)]
    if tuple(tile) == tuple(size):
        return net(image)
    weight = tent(tile, image.device)
    logits, total = None, torch.zeros(size, device=image.device)
    for window in windows(size, tile, overlap):
        part = net(image[:, :, *window]).float()
        if logits is None:
            logits = part.new_zeros(*part.shape[:2], *size)
        logits[:, :, *window] += part * weight
        total[window] += weight
    assert logits is not None
    return logits.div_(total)


def windows(size: Sequence[int], tile: Sequence[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """The tiles that cover ``size``, each of the full ``tile``, as slices."""
    axes = [starts(n, m, overlap) for n, m in zip(size, tile, strict=True)]
    for corner in product(*axes):
        yield tuple(slice(start, start + m) for start, m in zip(corner, tile, strict=True))


def starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where the tiles along an axis begin: as few as overlap enough, spread evenly, the last one flush with the end."""
    step = max(1, int(tile * (1 - overlap)))
    steps = -(-(size - tile) // step)
    return [place * (size - tile) // steps for place in range(steps + 1)] if steps else [0]


def tent(tile: Sequence[int], device: torch.device) -> Tensor:
    """Weights of a tile's samples (*tile): along each axis 1, 2, 3, ... towards its middle, multiplied."""
    weight = torch.ones((), device=device)
    for n in tile:
        place = torch.arange(n, device=device)
        weight = weight[..., None] * torch.minimum(place + 1, n - place) / ((n + 1) // 2)
    return weight
