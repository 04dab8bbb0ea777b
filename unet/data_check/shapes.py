"""Size and width of the objects in a mask."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from unet.data.source import Array
from unet.diagnostics.objects import components

MAX_SAMPLES = 2**22  # number of pixels of a mask that are measured: its centre, if it has more


@dataclass
class Shapes:
    """The objects of one class; an object is a connected component, as in :mod:`unet.diagnostics.objects`.

    Attributes:
        areas: pixels of each object.
        extents: the longest side of its bounding box.
        widths: its width across; see :func:`object_widths`.
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
        """Return the median extent of the class's objects, weighted by area so that specks count little."""
        return weighted_median(self.extents, self.areas)

    @property
    def width(self) -> float:
        """Return the median width of the class's objects, weighted by area."""
        return weighted_median(self.widths, self.areas)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the smallest value up to which the values hold half of the weight."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(np.array(weights, float)[order])
    return float(np.array(values)[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def center_crop(mask: Array) -> Array:
    """Return the centre of a mask (*S), at most ``MAX_SAMPLES`` pixels, of the same proportions."""
    fraction = min(1.0, (MAX_SAMPLES / mask.size) ** (1 / mask.ndim))
    return mask[tuple(slice(round(n * (1 - fraction) / 2), round(n * (1 + fraction) / 2)) for n in mask.shape)]


def measure_objects(mask: Array) -> Shapes:
    """Measure the objects of a boolean mask (*S); pixels that touch at a corner are connected."""
    box = ndimage.find_objects(mask.view(np.uint8))
    if not box or box[0] is None:
        return Shapes()
    mask = mask[box[0]]
    labels = components(mask)
    areas = np.bincount(labels.ravel())[1:]
    extents = [max(side.stop - side.start for side in box) for box in ndimage.find_objects(labels)]
    lengths = np.ones(len(areas))
    if mask.ndim > 1:
        skeleton = skeletonize(mask).astype(bool)
        lengths = np.maximum(np.bincount(labels[skeleton], minlength=len(areas) + 1)[1:], 1)
    return Shapes(areas.tolist(), extents, object_widths(areas, lengths, mask.ndim).tolist())


def object_widths(areas: Array, lengths: Array, spatial_dims: int) -> Array:
    """Return the width of each object across, in pixels: 3 for a line of 3 pixels, n/2 to n for a square of side n.

    In 2-D the area per pixel of skeleton, in 3-D the root of the volume per voxel of skeleton, but at most the side of
    the square or cube of that area or volume. In 1-D, where there is no skeleton, the length.
    """
    if spatial_dims == 1:
        return areas.astype(float)
    return np.minimum((areas / lengths) ** (1 / (spatial_dims - 1)), areas ** (1 / spatial_dims))
