"""How an image too large for the memory is predicted from a bundle: the tiles of this project's own prediction."""

import math
from dataclasses import dataclass
from typing import Any

from unet.apply import PredictOptions, overlap_of, tile_of
from unet.inference import SIGMA, Tiling, tiling
from unet.receptive import Field
from unet.segmenter import Segmenter

SAMPLES = 2**19
"""Of the image on which tiled and whole prediction are compared, at most."""


@dataclass(frozen=True)
class Recipe:
    """Tiles for :func:`unet.inference.sliding_window`.

    Attributes:
        tile: size along each axis, a multiple of the total stride.
        overlap: samples that neighbours share at least, along each axis.
        stride: the total stride.
        field: how many samples a probability depends on, per axis; infinite where it is the whole image.
    """

    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    stride: tuple[int, ...]
    field: Field

    @property
    def enough(self) -> bool:
        """Whether every sample lies in a tile that holds all it depends on."""
        return all(samples - 1 <= shared for samples, shared in zip(self.field, self.overlap, strict=True))

    def tiles(self, size: tuple[int, ...]) -> Tiling:
        return tiling(size, self.tile, self.overlap, self.stride)

    def described(self, labels: bool) -> dict[str, Any]:
        """In numbers and words, for a bundle that gives ``labels`` or probabilities."""
        return {
            "tile": list(self.tile),
            "overlap": list(self.overlap),
            "receptive_field": [None if math.isinf(samples) else int(samples) for samples in self.field],
            "overlap_covers_the_field": self.enough,
            "padding": "with r the total stride, an axis of n samples is first padded by its border's, -n % r of them, "
            "half before (rounded down) and the rest after, which are cut off again at the end",
            "placing": "per axis as few tiles as the overlap allows, all beginning at multiples of r: step = "
            "max(1, (tile - overlap) // r), beyond = (padded - tile) // r, steps = ceil(beyond / step), start i = "
            "i * beyond // steps * r; a padded axis no longer than the tile is one tile",
            "weights": f"of sample i of a tile of n, per axis exp(-0.5 * ((i - (n - 1) / 2) / (n * {SIGMA})) ** 2), "
            "multiplied over the axes",
            "blending": "a sample's label is that of the tile in which it weighs most"
            if labels
            else "the weighted mean of the logarithms of the tiles' probabilities; its softmax are the image's",
        }

    def spanning(self) -> tuple[int, ...]:
        """The size of an image that takes several tiles along as many axes as ``SAMPLES`` allow."""
        size = [n + n // 2 + 1 for n in self.tile]
        for axis in reversed(range(1, len(size))):
            others = math.prod(size) // size[axis]
            size[axis] = max(self.stride[axis] + 1, min(size[axis], SAMPLES // others))
        return tuple(size)


def recipe(segmenter: Segmenter) -> Recipe:
    """The tiles in which :meth:`unet.segmenter.Segmenter.predict` takes an image, if it is not told others."""
    stride, how = segmenter.net.total_stride, PredictOptions()
    tile = tile_of(segmenter, how)
    rounded = tuple(-(-n // r) * r for n, r in zip(tile, stride, strict=True))
    return Recipe(rounded, tuple(overlap_of(segmenter, how)), tuple(stride), segmenter.field)
