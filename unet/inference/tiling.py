"""Sliding-window prediction of images that are too large for the network: overlapping tiles, blended.

:func:`sliding_window` holds at most the logits of a row of overlaps. Evaluation fills a tensor from it,
``scripts/predict.py`` writes files of any size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice, pairwise, product

import torch
from torch import Tensor

from unet.errors import UserError
from unet.network.geometry import padding_to_multiple

Window = tuple[slice, ...]
"""A box of samples, one slice per axis."""
Network = Callable[[Tensor], Tensor]
Read = Callable[[Window], Tensor]
"""A window of the image -> its samples (B, C, *window)."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian weights of a tile, as a fraction of the tile."""


def check_tile(tile: Sequence[int] | None, overlap: float, spatial_dims: int, keys: str = "data.eval_") -> None:
    """Raise UserError unless ``tile`` is None or a size along each axis, and ``overlap`` a fraction below 1.

    ``keys`` is the prefix of ``tile`` and ``overlap`` in error messages.
    """
    if tile is not None and not (
        isinstance(tile, Sequence)
        and len(tile) == spatial_dims
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in tile)
    ):
        raise UserError(
            f"{keys}tile: expected null or {spatial_dims} integers of at least 1, one an axis, found {tile!r}"
        )
    if not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        raise UserError(f"{keys}overlap: expected a share of at least 0 and below 1, found {overlap!r}")


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size over an image that is padded to a multiple of the network's total stride.

    Tiles start at multiples of the total stride of the padded image, so that the pooling windows of a tile are those of
    the whole image.

    Attributes:
        size: of the image, along each axis.
        before: samples of padding before it.
        tile: size of a tile.
        starts: first samples of the tiles along each axis, in the padded image.
    """

    size: tuple[int, ...]
    before: tuple[int, ...]
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every tile along each axis, in raster order."""
        return product(*(range(len(axis)) for axis in self.starts))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def read(self, read: Read, index: tuple[int, ...]) -> Tensor:
        """Return the samples of a tile (B, C, *tile), with replication padding as in the network."""
        corner = [axis[i] - p for axis, i, p in zip(self.starts, index, self.before, strict=True)]
        inside = tuple(slice(max(c, 0), min(c + m, n)) for c, m, n in zip(corner, self.tile, self.size, strict=True))
        image = read(inside)
        for axis, (c, m, part) in enumerate(zip(corner, self.tile, inside, strict=True), start=2):
            if part.stop - part.start < m:
                samples = torch.arange(c, c + m, device=image.device).clamp(part.start, part.stop - 1)
                image = image.index_select(axis, samples - part.start)
        return image

    def tile_weights(self, axis: int, device: torch.device) -> list[Tensor]:
        """Return the weights (tile,) of every tile along an axis; at each sample they sum to one."""
        weight = gaussian_window(self.tile[axis], device)
        starts, m = self.starts[axis], self.tile[axis]
        total = torch.zeros(starts[-1] + m, device=device, dtype=weight.dtype)
        for start in starts:
            total[start : start + m] += weight
        return [(weight / total[start : start + m]).float() for start in starts]


def place_tiles(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[int], multiple: Sequence[int] | None = None
) -> Tiling:
    """Place tiles over an image of ``size``, along no axis larger than the image.

    Args:
        size: of the image, along each axis.
        tile: of a tile; rounded up to a multiple of ``multiple``.
        overlap: samples that neighbouring tiles share at least.
        multiple: the network's total stride, of which tiles start at multiples; None: anywhere.
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
    """Return the first samples of the tiles along an axis: as few as possible, spread evenly up to the end.

    ``size`` and ``tile`` are multiples of ``multiple``, and so is every start.
    """
    step = max(1, (tile - overlap) // multiple)
    beyond = (size - tile) // multiple
    steps = -(-beyond // step)
    return [i * beyond // steps * multiple for i in range(steps + 1)] if steps else [0]


def gaussian_window(tile: int, device: torch.device) -> Tensor:
    """Return Gaussian weights of a tile's samples along an axis (tile,), 1/3000 at its border.

    Where tiles overlap, the tile whose border is farther away dominates, without seams. Source: the importance
    weighting of nnU-Net's sliding window, Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.
    """
    offset = torch.arange(tile, device=device, dtype=torch.float32) - (tile - 1) / 2
    return torch.exp(-0.5 * (offset / (SIGMA * tile)) ** 2)


@torch.no_grad()
def sliding_window(net: Network, read: Read, tiles: Tiling, batch: int = 1) -> Iterator[tuple[Window, Tensor]]:
    """Yield (window, logits (B, K, *window)) of windows that cover the image once, in raster order.

    Logits are averaged over the tiles that hold a sample, weighted by :meth:`Tiling.tile_weights`, in float32 in any
    precision of the network. A window is returned as soon as its last tile is known, and not kept. Memory: the network
    on ``batch`` tiles, and the logits where two tiles overlap: 4 bytes x classes x overlap x width of an image, for any
    height.

    Args:
        net: (n, C, *tile) -> (n, K, *tile).
        read: returns a window of the image (B, C, *window), without padding.
        tiles: the positions of the tiles.
        batch: tiles that go through the network together.
    """
    carried: list[Tensor | None] = [None] * len(tiles.size)
    tile_weights: list[list[Tensor]] = []
    for index, part in predict_tiles(net, read, tiles, batch):
        tile_weights = tile_weights or [tiles.tile_weights(axis, part.device) for axis in range(len(tiles.size))]
        # Narrower logits become float32 in this one pass.
        part = part * reduce(
            lambda a, b: a[..., None] * b, [axis[n] for axis, n in zip(tile_weights, index, strict=True)]
        )
        done: list[slice] = []
        for axis in reversed(range(len(index))):
            part, finished = flush_axis(part, tiles, axis, index[axis], done, carried)
            done.insert(0, finished)
        yield crop_part(part, done, tiles)


def predict_tiles(net: Network, read: Read, tiles: Tiling, batch: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield the index and the logits (B, K, *tile) of every tile."""
    indices = tiles.indices()
    while chunk := list(islice(indices, batch)):
        images = [tiles.read(read, index) for index in chunk]
        logits = net(torch.cat(images) if len(images) > 1 else images[0])
        yield from zip(chunk, logits.split(len(images[0])), strict=True)


def flush_axis(
    part: Tensor, tiles: Tiling, axis: int, position: int, done: Sequence[slice], carried: list[Tensor | None]
) -> tuple[Tensor, slice]:
    """Add the overlap stored by the previous tile along ``axis``, and store the overlap with the next tile.

    Returns the samples that are final along ``axis`` and their slice in the padded image; ``done`` holds the slices of
    the later axes.
    """
    begins, m, dim = tiles.starts[axis], tiles.tile[axis], axis + 2
    begin, last = begins[position], position + 1 == len(begins)
    final = m if last else begins[position + 1] - begin
    store, slower = carried[axis], (slice(None),) * dim
    if position and store is not None:
        shared = begins[position - 1] + m - begin
        part.narrow(dim, 0, shared).add_(store[*slower, :shared, *done])
    if not last:
        if store is None:
            most = m - min(second - first for first, second in pairwise(begins))
            rest = [axis[-1] + n for axis, n in zip(tiles.starts[axis + 1 :], tiles.tile[axis + 1 :], strict=True)]
            store = carried[axis] = part.new_empty(*part.shape[:dim], most, *rest)
        store[*slower, : m - final, *done] = part.narrow(dim, final, m - final)
        part = part.narrow(dim, 0, final)
    return part, slice(begin, begin + final)


def crop_part(part: Tensor, done: Sequence[slice], tiles: Tiling) -> tuple[Window, Tensor]:
    """Return the window of a part of the padded image in the image itself, and the part cropped to it."""
    window = []
    for axis, (padded, before, n) in enumerate(zip(done, tiles.before, tiles.size, strict=True), start=2):
        inside = slice(max(padded.start - before, 0), min(padded.stop - before, n))
        part = part.narrow(axis, inside.start + before - padded.start, inside.stop - inside.start)
        window.append(inside)
    return tuple(window), part


@torch.no_grad()
def predict_logits(
    net: Network,
    image: Tensor,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
    multiple: Sequence[int] | None = None,
) -> Tensor:
    """Return the logits (B, K, *S) of a batch of images (B, C, *S), predicted in tiles; see :func:`sliding_window`.

    Images that fit into a tile go through the network at once.

    Args:
        net: image -> logits, for any size.
        image: the batch.
        tile: size along each spatial axis; None: the whole image.
        overlap: fraction of a tile, 0 to below 1.
        multiple: the network's total stride, see :func:`tiling`.
    """
    size = image.shape[2:]
    if tile is None or all(m >= n for m, n in zip(tile, size, strict=True)):
        return net(image)
    tiles = place_tiles(size, tile, overlap_samples(tile, overlap), multiple)
    return stitch(sliding_window(net, lambda window: image[:, :, *window], tiles), size)


def stitch(
    parts: Iterable[tuple[Window, Tensor]], size: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """Join the windows of :func:`sliding_window` into one tensor (B, K, *size) on ``device`` (None: theirs)."""
    logits = None
    for window, part in parts:
        if logits is None:
            logits = part.new_empty(*part.shape[:2], *size, device=device or part.device)
        logits[:, :, *window] = part.to(logits.device)
    assert logits is not None
    return logits


def overlap_samples(tile: Sequence[int], overlap: float) -> list[int]:
    """Convert an overlap from a fraction of a tile to samples along each axis, rounded up."""
    return [m - max(1, int(m * (1 - overlap))) for m in tile]
