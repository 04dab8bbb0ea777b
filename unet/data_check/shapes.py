"""How large and how thin the objects in a mask are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from unet.data.source import Array
from unet.diagnostics.objects import components

MAX_SAMPLES = 2**22
"""Samples of a mask that are looked at: the middle, where it has more."""


@dataclass
class Shapes:
    """The objects of one class; an object is a connected component, as in :mod:`unet.diagnostics.objects`.

    Attributes:
        areas: samples of each.
        extents: the longest side of its bounding box.
        widths: how wide it is across; see :func:`width`.
    """

    areas: list[int] = field(default_factory=list)
    extents: list[int] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def __iadd__(self, other: "Shapes") -> "Shapes":
        self.areas += other.areas
        self.extents += other.extents
        self.widths += other.widths
        return self

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def extent(self) -> float:
        """The extent up to which objects hold half of the class's samples: so specks count for what they are."""
        return weighted_median(self.extents, self.areas)

    @property
    def width(self) -> float:
        """The width up to which objects hold half of the class's samples."""
        return weighted_median(self.widths, self.areas)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median: the least value up to which values hold half of the weight."""
    order = np.argsort(values, kind="stable")
    held = np.cumsum(np.array(weights, float)[order])
    return float(np.array(values)[order][np.searchsorted(held, held[-1] / 2)])


def center_crop(places: Array) -> Array:
    """The middle of (*S), at most ``MIDDLE`` samples of it, of the same proportions."""
    share = min(1.0, (MAX_SAMPLES / places.size) ** (1 / places.ndim))
    return places[tuple(slice(round(n * (1 - share) / 2), round(n * (1 + share) / 2)) for n in places.shape)]


def measure_objects(mask: Array) -> Shapes:
    """The objects of a boolean mask (*S); samples that touch at a corner belong together."""
    inside = ndimage.find_objects(mask.view(np.uint8))
    if not inside or inside[0] is None:
        return Shapes()
    mask = mask[inside[0]]
    labels = components(mask)
    areas = np.bincount(labels.ravel())[1:]
    number = len(areas)
    extents = [max(side.stop - side.start for side in box) for box in ndimage.find_objects(labels)]
    lengths = np.ones(number)
    if mask.ndim > 1:
        skeleton = skeletonize(mask).astype(bool)
        lengths = np.maximum(np.bincount(labels[skeleton], minlength=number + 1)[1:], 1)
    return Shapes(areas.tolist(), extents, object_widths(areas, lengths, mask.ndim).tolist())


def object_widths(areas: Array, lengths: Array, spatial_dims: int) -> Array:
    """How wide objects are across, in samples: a line of 3 samples is 3 wide, a square of side n about n/2 to n.

    In 2-D the area per sample of skeleton, in 3-D the root of the volume per sample of skeleton, and never more than
    the side of the square or cube of that area or volume. A line has no skeleton: in 1-D it is the length.
    """
    if spatial_dims == 1:
        return areas.astype(float)
    return np.minimum((areas / lengths) ** (1 / (spatial_dims - 1)), areas ** (1 / spatial_dims))
