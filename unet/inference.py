"""Prediction of images that are too large to go through a network at once: overlapping tiles, blended.

There is one implementation, :func:`blended`, which never holds the logits of more than a row of overlaps: evaluation
fills a tensor from it, ``scripts/predict.py`` writes files from it, whatever their size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice, pairwise, product

import torch
from torch import Tensor

from unet.errors import UserError
from unet.geometry import padding_to_multiple

Window = tuple[slice, ...]
"""A box of samples, one slice an axis."""
Network = Callable[[Tensor], Tensor]
Read = Callable[[Window], Tensor]
"""A window of the image -> its samples (B, C, *window)."""

SIGMA = 1 / 8
"""Width of the Gaussian a tile is weighted by, as a share of the tile."""


def check_tile(tile: Sequence[int] | None, overlap: float, spatial_dims: int, keys: str = "data.eval_") -> None:
    """Raise UserError unless ``tile`` is None or a size along each spatial axis, and ``overlap`` a share below 1.

    ``keys`` is what messages put before ``tile`` and ``overlap``.
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
    """Tiles of one size over an image, which is padded to whole blocks of the network's grid first.

    Every tile begins where a block of the grid does that the network would lay over the whole image, so that a tile's
    middle is predicted as it is in the whole image, and not as in an image that was shifted.

    Attributes:
        size: of the image, along each axis.
        before: samples of padding ahead of it.
        tile: size of a tile.
        starts: where the tiles of each axis begin, in the padded image.
    """

    size: tuple[int, ...]
    before: tuple[int, ...]
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    def places(self) -> Iterator[tuple[int, ...]]:
        """Every tile, as its number along each axis, in raster order."""
        return product(*(range(len(axis)) for axis in self.starts))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def read(self, read: Read, place: tuple[int, ...]) -> Tensor:
        """A tile's samples (B, C, *tile); padding repeats the border's, as the network's own does."""
        corner = [axis[number] - p for axis, number, p in zip(self.starts, place, self.before, strict=True)]
        inside = tuple(slice(max(c, 0), min(c + m, n)) for c, m, n in zip(corner, self.tile, self.size, strict=True))
        image = read(inside)
        for axis, (c, m, part) in enumerate(zip(corner, self.tile, inside, strict=True), start=2):
            if part.stop - part.start < m:
                wanted = torch.arange(c, c + m, device=image.device).clamp(part.start, part.stop - 1)
                image = image.index_select(axis, wanted - part.start)
        return image

    def shares(self, axis: int, device: torch.device) -> list[Tensor]:
        """How much each tile of an axis has a say in each of its samples (tile,): over the tiles they add up to one."""
        weight = bump(self.tile[axis], device)
        starts, m = self.starts[axis], self.tile[axis]
        total = torch.zeros(starts[-1] + m, device=device, dtype=weight.dtype)
        for start in starts:
            total[start : start + m] += weight
        return [(weight / total[start : start + m]).float() for start in starts]


def tiling(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[int], multiple: Sequence[int] | None = None
) -> Tiling:
    """Tiles over an image of ``size``, none larger along an axis than the image.

    Args:
        size: of the image, along each axis.
        tile: of a tile; made a multiple of ``multiple`` where it is none.
        overlap: samples that neighbouring tiles share at least.
        multiple: the network's total stride, to the grid of which tiles are laid; None: no grid.
    """
    multiple = multiple or (1,) * len(size)
    padding = padding_to_multiple(size, multiple)
    padded = [n + before + after for n, (before, after) in zip(size, padding, strict=True)]
    tile = [min(-(-m // r) * r, n) for m, n, r in zip(tile, padded, multiple, strict=True)]
    return Tiling(
        tuple(size),
        tuple(before for before, _ in padding),
        tuple(tile),
        tuple(tuple(starts(*axis)) for axis in zip(padded, tile, overlap, multiple, strict=True)),
    )


def starts(size: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """Where the tiles along an axis begin: as few as overlap enough, spread evenly, the last one flush with the end.

    ``size`` and ``tile`` are multiples of ``multiple``, and so is every start.
    """
    step = max(1, (tile - overlap) // multiple)
    beyond = (size - tile) // multiple
    steps = -(-beyond // step)
    return [place * beyond // steps * multiple for place in range(steps + 1)] if steps else [0]


def bump(tile: int, device: torch.device) -> Tensor:
    """Weights of a tile's samples along an axis (tile,): a Gaussian about its middle, 1/3000 at its rim.

    Where tiles overlap, the one that has a sample further inside decides, with a soft passage: no seams. Source: the
    importance weighting of nnU-Net's sliding window, Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.
    """
    place = torch.arange(tile, device=device, dtype=torch.float32) - (tile - 1) / 2
    return torch.exp(-0.5 * (place / (SIGMA * tile)) ** 2)


@torch.no_grad()
def blended(net: Network, read: Read, tiles: Tiling, batch: int = 1) -> Iterator[tuple[Window, Tensor]]:
    """(window, logits (B, K, *window)) of parts of the image: every sample in one part, parts in raster order.

    Logits are averaged over the tiles a sample is in, weighted by :meth:`Tiling.shares`, in float32 whatever the
    network computes in. As soon as the last of these tiles is known a part is handed out and forgotten. Memory: the
    network on ``batch`` tiles, and along each axis the logits where two tiles overlap, along the first axis over the
    whole image's extent in the others: 4 bytes x classes x overlap x width of a picture, whatever its height.

    Args:
        net: (n, C, *tile) -> (n, K, *tile).
        read: gives a window of the image, (B, C, *window), without padding.
        tiles: where the tiles are.
        batch: tiles that go through the network together.
    """
    carried: list[Tensor | None] = [None] * len(tiles.size)
    shares: list[list[Tensor]] = []
    for place, part in predicted(net, read, tiles, batch):
        shares = shares or [tiles.shares(axis, part.device) for axis in range(len(tiles.size))]
        # Narrower logits become float32 in this one pass.
        part = part * reduce(lambda a, b: a[..., None] * b, [axis[n] for axis, n in zip(shares, place, strict=True)])
        done: list[slice] = []
        for axis in reversed(range(len(place))):
            part, finished = settled(part, tiles, axis, place[axis], done, carried)
            done.insert(0, finished)
        yield cropped(part, done, tiles)


def predicted(net: Network, read: Read, tiles: Tiling, batch: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Every tile's place and its logits (B, K, *tile)."""
    places = tiles.places()
    while chunk := list(islice(places, batch)):
        images = [tiles.read(read, place) for place in chunk]
        logits = net(torch.cat(images) if len(images) > 1 else images[0])
        yield from zip(chunk, logits.split(len(images[0])), strict=True)


def settled(
    part: Tensor, tiles: Tiling, axis: int, number: int, done: Sequence[slice], carried: list[Tensor | None]
) -> tuple[Tensor, slice]:
    """Along one axis: add what the tiles before left for this one, and put by what those after still change.

    Returns what is final along ``axis`` and where in the padded image it is; ``done`` says the same of the later axes.
    """
    begins, m, dim = tiles.starts[axis], tiles.tile[axis], axis + 2
    begin, last = begins[number], number + 1 == len(begins)
    final = m if last else begins[number + 1] - begin
    store, slower = carried[axis], (slice(None),) * dim
    if number and store is not None:
        shared = begins[number - 1] + m - begin
        part.narrow(dim, 0, shared).add_(store[*slower, :shared, *done])
    if not last:
        if store is None:
            most = m - min(second - first for first, second in pairwise(begins))
            rest = [axis[-1] + n for axis, n in zip(tiles.starts[axis + 1 :], tiles.tile[axis + 1 :], strict=True)]
            store = carried[axis] = part.new_empty(*part.shape[:dim], most, *rest)
        store[*slower, : m - final, *done] = part.narrow(dim, final, m - final)
        part = part.narrow(dim, 0, final)
    return part, slice(begin, begin + final)


def cropped(part: Tensor, done: Sequence[slice], tiles: Tiling) -> tuple[Window, Tensor]:
    """A part in the padded image as one of the image itself."""
    window = []
    for axis, (found, before, n) in enumerate(zip(done, tiles.before, tiles.size, strict=True), start=2):
        inside = slice(max(found.start - before, 0), min(found.stop - before, n))
        part = part.narrow(axis, inside.start + before - found.start, inside.stop - inside.start)
        window.append(inside)
    return tuple(window), part


@torch.no_grad()
def predict(
    net: Network,
    image: Tensor,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
    multiple: Sequence[int] | None = None,
) -> Tensor:
    """image (B, C, *S) -> logits (B, K, *S) of a network that is shown at most a tile at a time; see :func:`blended`.

    An image that fits into a tile goes through at once, and the result is the network's own.

    Args:
        net: image -> logits, for every size.
        image: the batch.
        tile: size along each spatial axis; None: the whole image.
        overlap: share of a tile, 0 to below 1.
        multiple: the network's total stride, see :func:`tiling`.
    """
    size = image.shape[2:]
    if tile is None or all(m >= n for m, n in zip(tile, size, strict=True)):
        return net(image)
    tiles = tiling(size, tile, overlap_samples(tile, overlap), multiple)
    return gathered(blended(net, lambda window: image[:, :, *window], tiles), size)


def gathered(
    parts: Iterable[tuple[Window, Tensor]], size: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """The parts of :func:`blended` as one tensor (B, K, *size), on ``device`` (None: on theirs)."""
    logits = None
    for window, part in parts:
        if logits is None:
            logits = part.new_empty(*part.shape[:2], *size, device=device or part.device)
        logits[:, :, *window] = part.to(logits.device)
    assert logits is not None
    return logits


def overlap_samples(tile: Sequence[int], overlap: float) -> list[int]:
    """A share of a tile in samples along each axis, at least that."""
    return [m - max(1, int(m * (1 - overlap))) for m in tile]
