"""Sliding-window prediction of large images: overlapping tiles, blended with Gaussian weights.

:func:`sliding_window` keeps only the logits where tiles overlap. Evaluation collects its windows in a tensor,
``unet.prediction`` writes them to files of any size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice, pairwise, product

import torch
from torch import Tensor

from unet.errors import UserError
from unet.network.geometry import Window, padding_to_multiple

Network = Callable[[Tensor], Tensor]
Read = Callable[[Window], Tensor]
"""Window of the image -> pixels (B, C, *window)."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian weights of a tile, as a fraction of the tile."""


def check_tile(tile: Sequence[int] | None, overlap: float, spatial_dims: int, prefix: str = "data.eval_") -> None:
    """Raise UserError unless ``tile`` is None or a size along each axis, and ``overlap`` a fraction below 1."""
    if tile is not None and not (
        isinstance(tile, Sequence)
        and len(tile) == spatial_dims
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in tile)
    ):
        raise UserError(
            f"{prefix}tile: expected null or {spatial_dims} integers of at least 1, one per axis, found {tile!r}"
        )
    if not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise UserError(f"{prefix}overlap: expected a fraction of at least 0 and below 1, found {overlap!r}")


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size over an image that is padded to a multiple of the network's total stride.

    Tiles start at multiples of the total stride in the padded image, so that the pooling windows of a tile are those of
    the complete image.
    """

    size: tuple[int, ...]  # of the image
    before: tuple[int, ...]  # padding before the image
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]  # in the padded image

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every tile along each axis, in raster order."""
        return product(*(range(len(axis)) for axis in self.starts))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def read(self, read: Read, index: tuple[int, ...]) -> Tensor:
        """Return the pixels of a tile (B, C, *tile), with replication padding as in the network."""
        corner = [axis[i] - p for axis, i, p in zip(self.starts, index, self.before, strict=True)]
        inside = tuple(slice(max(c, 0), min(c + m, n)) for c, m, n in zip(corner, self.tile, self.size, strict=True))
        image = read(inside)
        for axis, (c, m, window) in enumerate(zip(corner, self.tile, inside, strict=True), start=2):
            if window.stop - window.start < m:
                indices = torch.arange(c, c + m, device=image.device).clamp(window.start, window.stop - 1)
                image = image.index_select(axis, indices - window.start)
        return image

    def tile_weights(self, axis: int, device: torch.device) -> list[Tensor]:
        """Return the weights (tile,) of every tile along an axis; at each position they sum to one."""
        weight = gaussian_window(self.tile[axis], device)
        starts, m = self.starts[axis], self.tile[axis]
        total = torch.zeros(starts[-1] + m, device=device, dtype=weight.dtype)
        for start in starts:
            total[start : start + m] += weight
        return [(weight / total[start : start + m]).float() for start in starts]


def place_tiles(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[int], multiple: Sequence[int] | None = None
) -> Tiling:
    """Place tiles over an image of ``size``; along no axis is a tile larger than the padded image.

    ``tile`` is rounded up to multiples of the network's total stride (``multiple``), at which the tiles start;
    ``overlap`` is the minimum in pixels.
    """
    multiple = multiple or (1,) * len(size)
    padding = padding_to_multiple(size, multiple)
    padded = [n + before + after for n, (before, after) in zip(size, padding, strict=True)]
    tile = [min(-(-m // r) * r, n) for m, n, r in zip(tile, padded, multiple, strict=True)]
    return Tiling(
        tuple(size),
        tuple(before for before, _ in padding),
        tuple(tile),
        tuple(tuple(tile_starts(*axis)) for axis in zip(padded, tile, overlap, multiple, strict=True)),
    )


def tile_starts(size: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """Return the positions of the tiles along an axis: as few tiles as possible, evenly spaced.

    ``size`` and ``tile`` are multiples of ``multiple``, and so is every position.
    """
    step = max(1, (tile - overlap) // multiple)
    last = (size - tile) // multiple
    steps = -(-last // step)
    return [i * last // steps * multiple for i in range(steps + 1)] if steps else [0]


def gaussian_window(tile: int, device: torch.device) -> Tensor:
    """Return Gaussian weights along an axis of a tile (tile,), about 1/3000 at its border.

    Where tiles overlap, the tile whose border is farther away dominates, which avoids seams. Source: the importance
    weighting of nnU-Net's sliding window, Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.
    """
    offset = torch.arange(tile, device=device, dtype=torch.float32) - (tile - 1) / 2
    return torch.exp(-0.5 * (offset / (SIGMA * tile)) ** 2)


@torch.no_grad()
def sliding_window(net: Network, read: Read, tiles: Tiling, batch: int = 1) -> Iterator[tuple[Window, Tensor]]:
    """Yield (window, logits (B, K, *window)) of windows that cover the image once, in raster order.

    Logits are averaged over the tiles that contain a pixel, weighted by :meth:`Tiling.tile_weights`, in float32 for any
    precision of the network. A window is returned as soon as its last tile is predicted. Memory: the network on
    ``batch`` tiles, and the logits where two tiles overlap: 4 bytes x classes x overlap x width of an image, for any
    height.
    """
    overlaps: list[Tensor | None] = [None] * len(tiles.size)
    weights: list[list[Tensor]] = []
    for index, logits in predict_tiles(net, read, tiles, batch):
        weights = weights or [tiles.tile_weights(axis, logits.device) for axis in range(len(tiles.size))]
        tile_weight = reduce(lambda a, b: a[..., None] * b, [axis[n] for axis, n in zip(weights, index, strict=True)])
        logits = logits * tile_weight  # to float32 in the same pass
        window: list[slice] = []
        for axis in reversed(range(len(index))):
            logits, final = flush_axis(logits, tiles, axis, index[axis], window, overlaps)
            window.insert(0, final)
        yield crop_padding(logits, window, tiles)


def predict_tiles(net: Network, read: Read, tiles: Tiling, batch: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield the index and the logits (B, K, *tile) of every tile."""
    indices = tiles.indices()
    while chunk := list(islice(indices, batch)):
        images = [tiles.read(read, index) for index in chunk]
        logits = net(torch.cat(images) if len(images) > 1 else images[0])
        yield from zip(chunk, logits.split(len(images[0])), strict=True)


def flush_axis(
    logits: Tensor, tiles: Tiling, axis: int, position: int, window: Sequence[slice], overlaps: list[Tensor | None]
) -> tuple[Tensor, slice]:
    """Add the overlap stored by the previous tile along ``axis``, and store the overlap with the next tile.

    The weighted logits of the tile at ``position`` are already final along the later axes, where they are those of
    ``window`` in the padded image. Return the logits that are final along ``axis``, and their slice in the padded
    image. ``overlaps``, the last overlap along every axis, is updated in place.
    """
    starts, m, dim = tiles.starts[axis], tiles.tile[axis], axis + 2
    start, is_last = starts[position], position + 1 == len(starts)
    num_final = m if is_last else starts[position + 1] - start
    previous, leading = overlaps[axis], (slice(None),) * dim
    if position and previous is not None:
        shared = starts[position - 1] + m - start
        logits.narrow(dim, 0, shared).add_(previous[*leading, :shared, *window])
    if not is_last:
        if previous is None:
            max_overlap = m - min(second - first for first, second in pairwise(starts))
            later = [axis[-1] + n for axis, n in zip(tiles.starts[axis + 1 :], tiles.tile[axis + 1 :], strict=True)]
            previous = overlaps[axis] = logits.new_empty(*logits.shape[:dim], max_overlap, *later)
        previous[*leading, : m - num_final, *window] = logits.narrow(dim, num_final, m - num_final)
        logits = logits.narrow(dim, 0, num_final)
    return logits, slice(start, start + num_final)


def crop_padding(logits: Tensor, padded_window: Sequence[slice], tiles: Tiling) -> tuple[Window, Tensor]:
    """Convert a window of the padded image to the image itself, and crop its logits accordingly."""
    window = []
    for axis, (padded, before, n) in enumerate(zip(padded_window, tiles.before, tiles.size, strict=True), start=2):
        inside = slice(max(padded.start - before, 0), min(padded.stop - before, n))
        logits = logits.narrow(axis, inside.start + before - padded.start, inside.stop - inside.start)
        window.append(inside)
    return tuple(window), logits


@torch.no_grad()
def predict_logits(
    net: Network,
    image: Tensor,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
    multiple: Sequence[int] | None = None,
) -> Tensor:
    """Return the logits (B, K, *S) of a batch of images (B, C, *S), predicted in tiles; see :func:`sliding_window`.

    Images that fit into one tile are predicted in one forward pass, as all images are without ``tile``. ``overlap`` is
    a fraction of a tile; for ``multiple`` see :func:`place_tiles`.
    """
    size = image.shape[2:]
    if tile is None or all(m >= n for m, n in zip(tile, size, strict=True)):
        return net(image)
    tiles = place_tiles(size, tile, overlap_samples(tile, overlap), multiple)
    return stitch(sliding_window(net, lambda window: image[:, :, *window], tiles), size)


def stitch(
    windows: Iterable[tuple[Window, Tensor]], size: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """Join the windows of :func:`sliding_window` into one tensor (B, K, *size) on ``device`` (default: theirs)."""
    output = None
    for window, logits in windows:
        if output is None:
            output = logits.new_empty(*logits.shape[:2], *size, device=device or logits.device)
        output[:, :, *window] = logits.to(output.device)
    assert output is not None
    return output


def overlap_samples(tile: Sequence[int], overlap: float) -> list[int]:
    """Convert an overlap from a fraction of a tile to pixels along each axis, rounded up."""
    return [m - max(1, int(m * (1 - overlap))) for m in tile]
