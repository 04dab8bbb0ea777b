"""Tile size and overlap for images that do not fit into memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unet.analysis.receptive_field import Field
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter, tile_overlap, tile_size
from unet.inference.tiling import Tiling, place_tiles

MAX_PIXELS = 2**19
"""Pixels of the image on which tiled and full prediction are compared."""


@dataclass(frozen=True)
class TileSpec:
    """The tiles for :func:`unet.inference.tiling.sliding_window`.

    Attributes:
        tile: size along each axis, a multiple of the total stride.
        overlap: smallest overlap of neighbours along each axis.
        total_stride: total stride along each axis.
        field: receptive field along each axis; infinite if it is the whole image.
    """

    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    total_stride: tuple[int, ...]
    field: Field

    @property
    def covers_field(self) -> bool:
        """Return whether every pixel is in a tile that contains its receptive field."""
        return all(field - 1 <= overlap for field, overlap in zip(self.field, self.overlap, strict=True))

    def tiling(self, size: tuple[int, ...]) -> Tiling:
        """Return the tiles of an image of ``size``."""
        return place_tiles(size, self.tile, self.overlap, self.total_stride)

    def to_json(self) -> dict[str, Any]:
        """Return the entries of ``bundle.json``."""
        return {
            "tile": list(self.tile),
            "overlap": list(self.overlap),
            "receptive_field": [None if math.isinf(field) else int(field) for field in self.field],
            "overlap_covers_the_field": self.covers_field,
        }

    def multi_tile_size(self) -> tuple[int, ...]:
        """Return the size of an image with several tiles along as many axes as ``MAX_PIXELS`` allow."""
        size = [n + n // 2 + 1 for n in self.tile]
        for axis in reversed(range(1, len(size))):
            cross_section = math.prod(size) // size[axis]
            size[axis] = max(self.total_stride[axis] + 1, min(size[axis], MAX_PIXELS // cross_section))
        return tuple(size)


def tile_spec(segmenter: Segmenter, size: Sequence[int] | None = None) -> TileSpec:
    """Return tiles of ``size``, by default those of :meth:`unet.inference.segmenter.Segmenter.predict`."""
    stride, options = segmenter.net.total_stride, PredictOptions(tile=size)
    tile = tuple(-(-n // r) * r for n, r in zip(tile_size(segmenter, options), stride, strict=True))
    return TileSpec(tile, tuple(tile_overlap(segmenter, options)), tuple(stride), segmenter.field)
