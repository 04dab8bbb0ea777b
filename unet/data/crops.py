"""Random crops, a fraction of which contains a pixel of a rare class.

Albumentations validates arguments by the signature and by a schema, so both classes repeat those of their parent.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import albumentations as A
import numpy as np
from pydantic import Field

from unet.labels import IGNORE_INDEX

Array = np.ndarray
Fraction = Annotated[float, Field(ge=0, le=1)]


class ForegroundCrop(A.RandomCrop):
    """A random crop of image and mask; the fraction ``foreground`` of the crops contains a drawn pixel.

    Its class is drawn first, with equal probabilities, from all classes in the mask but the most frequent one; then the
    pixel; then the position of the crop around it. Masks of one class have ordinary crops. Source: Isensee et al. 2021,
    nnU-Net, https://doi.org/10.1038/s41592-020-01008-z, which draws a third of its crops in this way.
    """

    class InitSchema(A.RandomCrop.InitSchema):
        foreground: Fraction

    def __init__(
        self,
        height: int,
        width: int,
        foreground: float = 0.0,
        pad_if_needed: bool = False,
        pad_position: Any = "center",
        border_mode: int = 0,
        fill: float = 0,
        fill_mask: float = 0,
        p: float = 1,
    ):
        super().__init__(height, width, pad_if_needed, pad_position, border_mode, fill, fill_mask, p)
        self.foreground = foreground

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        result = super().get_params_dependent_on_data(params, data)
        mask, size = data.get("mask"), (self.height, self.width)
        starts = draw_crop(mask, size, result["pad_params"], ("top", "left"), self.foreground, self.py_random)
        if starts is not None:
            y, x = starts
            result["crop_coords"] = x, y, x + self.width, y + self.height
        return result


class ForegroundCrop3D(A.RandomCrop3D):
    """:class:`ForegroundCrop` for volumes."""

    class InitSchema(A.RandomCrop3D.InitSchema):
        foreground: Fraction

    def __init__(
        self,
        size: tuple[int, int, int],
        foreground: float = 0.0,
        pad_if_needed: bool = False,
        fill: float = 0,
        fill_mask: float = 0,
        p: float = 1,
    ):
        super().__init__(size, pad_if_needed, fill, fill_mask, p)
        self.foreground = foreground

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        result = super().get_params_dependent_on_data(params, data)
        mask, sides = data.get("mask3d"), ("front", "top", "left")
        starts = draw_crop(mask, self.size, result["pad_params"], sides, self.foreground, self.py_random)
        if starts is not None:
            result["crop_coords"] = tuple(n for a, m in zip(starts, self.size, strict=True) for n in (a, a + m))
        return result


def draw_crop(
    mask: Array | None,
    size: Sequence[int],
    padding: Mapping[str, int] | None,
    sides: Sequence[str],
    probability: float,
    generator: random.Random,
) -> list[int] | None:
    """Return the start of a crop of ``size`` along every axis that contains a drawn pixel of the mask (*S).

    None with the probability ``1 - probability``, and for a mask of one class. The start is that in the padded mask;
    ``padding`` has ``pad_<side>`` for each of ``sides``, those at the start of every axis.
    """
    if mask is None or not probability or generator.random() >= probability:
        return None
    counts = np.bincount(mask.reshape(-1), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    rare = [label for label in np.flatnonzero(counts) if label != counts.argmax()]
    if not rare:
        return None
    label = generator.choice(rare)
    place = np.flatnonzero(mask == label)[generator.randrange(counts[label])]
    starts = []
    for axis, (position, n, m) in enumerate(zip(np.unravel_index(place, mask.shape), mask.shape, size, strict=True)):
        before = padding[f"pad_{sides[axis]}"] if padding else 0
        position, n = int(position) + before, max(n, m)  # padded to the size of the crop
        starts.append(generator.randint(max(0, position - m + 1), min(position, n - m)))
    return starts
