"""How an image too large for the memory is to be predicted: tiles, as large and as overlapping as the network asks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet.receptive import Field, receptive_fields

LEAST = {1: 4096, 2: 256, 3: 64}
MOST = {1: 65536, 2: 1024, 3: 96}
"""Samples along an axis of a tile, by the number of axes; about as much memory in each."""
SAMPLES = 2**19
"""Of the image on which tiled and whole prediction are compared, at most."""


@dataclass(frozen=True)
class Recipe:
    """Tiles for :func:`unet.inference.predict`.

    Attributes:
        tile: size along each axis, a multiple of the total stride.
        overlap: share of a tile, the same along each axis.
        field: how many samples a probability depends on, per axis; infinite where it is the whole image.
        enough: whether every sample lies in a tile that holds all it depends on.
    """

    tile: tuple[int, ...]
    overlap: float
    field: Field
    enough: bool

    def described(self) -> dict[str, Any]:
        return {
            "tile": list(self.tile),
            "overlap": self.overlap,
            "receptive_field": [None if math.isinf(samples) else int(samples) for samples in self.field],
            "overlap_covers_the_field": self.enough,
            "placing": "per axis as few tiles as the overlap allows: step = max(1, int(tile * (1 - overlap))), steps = "
            "ceil((size - tile) / step), start i = i * (size - tile) // steps; an axis shorter than the tile is whole",
            "weights": "of sample i of a tile of n, per axis min(i + 1, n - i), multiplied over the axes; the result "
            "is the weighted mean of the tiles' probabilities",
        }

    def spanning(self) -> tuple[int, ...]:
        """The size of an image that takes several tiles along as many axes as ``SAMPLES`` allow."""
        size = list(self.tile)
        for axis, n in enumerate(self.tile):
            larger = n + n // 2 + 1
            if axis == 0 or math.prod(size) // n * larger <= SAMPLES:
                size[axis] = larger
        return tuple(size)


def recipe(model: Mapping[str, Any], stride: Sequence[int]) -> Recipe:
    """The tiles for ``UNet(**model)`` of that total stride: overlapping by its receptive field, at most by half."""
    field = receptive_fields(model).logits
    dims = len(stride)
    tiles, shares = [], []
    for samples, n in zip(field, stride, strict=True):
        needed = math.inf if math.isinf(samples) else samples - 1
        most = max(n, MOST[dims] // n * n)
        tile = most if 2 * needed >= most else max(-(-LEAST[dims] // n) * n, math.ceil(2 * needed / n) * n)
        tiles.append(tile)
        shares.append(min(0.5, needed / tile))
    overlap = math.ceil(max(shares) * 1000) / 1000
    enough = all(samples - 1 <= overlap * tile for samples, tile in zip(field, tiles, strict=True))
    return Recipe(tuple(tiles), min(0.5, overlap), field, enough)
