"""The tiles in which an image too large for the memory is predicted from a bundle."""

import math
from dataclasses import dataclass
from typing import Any

from unet.analysis.receptive_field import Field
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter, tile_overlap, tile_size
from unet.inference.tiling import Tiling, place_tiles

MAX_SAMPLES = 2**19
"""Samples of the image on which tiled and full prediction are compared."""


@dataclass(frozen=True)
class TileSpec:
    """Tiles for :func:`unet.inference.tiling.sliding_window`.

    Attributes:
        tile: size along each axis, a multiple of the total stride.
        overlap: smallest number of samples that neighbours share along each axis.
        total_stride: along each axis.
        field: receptive field of a probability along each axis; infinite if it is the whole image.
    """

    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    total_stride: tuple[int, ...]
    field: Field

    @property
    def covers_field(self) -> bool:
        """Return whether every sample is in a tile that holds its whole receptive field."""
        return all(samples - 1 <= overlap for samples, overlap in zip(self.field, self.overlap, strict=True))

    def tiling(self, size: tuple[int, ...]) -> Tiling:
        """Return the tiles of an image of ``size``."""
        return place_tiles(size, self.tile, self.overlap, self.total_stride)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers that a bundle holds."""
        return {
            "tile": list(self.tile),
            "overlap": list(self.overlap),
            "receptive_field": [None if math.isinf(samples) else int(samples) for samples in self.field],
            "overlap_covers_the_field": self.covers_field,
        }

    def multi_tile_size(self) -> tuple[int, ...]:
        """Return the size of an image with several tiles along as many axes as ``MAX_SAMPLES`` allow."""
        size = [n + n // 2 + 1 for n in self.tile]
        for axis in reversed(range(1, len(size))):
            others = math.prod(size) // size[axis]
            size[axis] = max(self.total_stride[axis] + 1, min(size[axis], MAX_SAMPLES // others))
        return tuple(size)


def tile_spec(segmenter: Segmenter) -> TileSpec:
    """Return the default tiles of :meth:`unet.inference.segmenter.Segmenter.predict`."""
    stride, options = segmenter.net.total_stride, PredictOptions()
    tile = tuple(-(-n // r) * r for n, r in zip(tile_size(segmenter, options), stride, strict=True))
    return TileSpec(tile, tuple(tile_overlap(segmenter, options)), tuple(stride), segmenter.field)
