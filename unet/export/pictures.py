"""Images, and masks where there are any, on which a variant is calibrated and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unet.data.files import LabelMap, image_files, pairs, require_folders
from unet.data.formats import read_image
from unet.data.samples import checked, evenly_spaced
from unet.data.source import Array, Item
from unet.errors import UserError
from unet.export.deployed import AXES, Given
from unet.geometry import times
from unet.labels import IGNORE_INDEX

MOST = 32
"""Images to calibrate on, and as many others to measure on."""


@dataclass(frozen=True)
class Picture:
    """An image (1, C, *S) as the network takes it, and its labels (1, *S) where there is a mask."""

    name: str
    image: Tensor
    target: Tensor | None


def pictures(
    folder: Path, given: Given, classes: Sequence[str], values: Mapping[Any, str] | None = None
) -> tuple[list[Picture], list[Picture]]:
    """Every second image of a folder to calibrate on, the others to measure on, up to ``MOST`` each.

    ``folder`` holds the images, or ``images/`` and, if there are any, ``masks/`` with a mask for each, matched by stem.

    Args:
        folder: of data like that of the training.
        given: the images the network takes; others are refused by name.
        classes: their names.
        values: what a mask stores -> class name or ``ignore``; None: the label, and 255 where there is none.
    """
    require_folders([folder], "calibration=FOLDER holds images like those of the training")
    images, masks = folder / "images", folder / "masks"
    reads: list[Callable[[], Picture]]
    if images.is_dir() and masks.is_dir():
        named = {**dict(enumerate(classes)), IGNORE_INDEX: "ignore"} if values is None else values
        labels = ours(partial(LabelMap, named, classes))
        reads = [partial(labelled, item, given, len(classes)) for item in pairs(images, masks, labels).values()]
    else:
        files = image_files(images if images.is_dir() else folder)
        reads = [partial(unlabelled, path, given) for path in files.values()]
    if len(reads) < 2:
        raise UserError(
            f"calibration={folder}: {len(reads)} images; it needs at least two, every second one to measure on"
        )
    found = [reads[place]() for place in evenly_spaced(len(reads), 2 * MOST)]
    return found[::2], found[1::2]


T = TypeVar("T")


def ours(make: Callable[[], T]) -> T:
    """What ``make`` makes; the key its refusals name is this command's."""
    try:
        return make()
    except UserError as error:
        raise UserError(str(error).replace("data.source.values", "values")) from None


def labelled(item: Item, given: Given, num_classes: int) -> Picture:
    pixels, target = ours(partial(checked, item, num_classes, len(given.stride)))
    return picture(item.name, pixels, given, torch.from_numpy(target[None].astype(np.int64)))


def unlabelled(path: Path, given: Given) -> Picture:
    return picture(str(path), read_image(path, spatial_dims=len(given.stride)), given, None)


def picture(name: str, pixels: Array, given: Given, target: Tensor | None) -> Picture:
    """Raise UserError naming the file where an image (*S, C) is none the network takes."""
    dims = len(given.stride)
    expected = f"{given.channels} channels of {given.dtype} and {dims} spatial axes ({AXES[dims]})"
    if pixels.ndim != dims + 1 or pixels.shape[-1] != given.channels or pixels.dtype != given.dtype:
        raise UserError(
            f"{name}: {times(pixels.shape)} (channels last) of {pixels.dtype}, expected {expected}; take it out"
        )
    if any(n < least for n, least in zip(pixels.shape, given.smallest, strict=False)):
        raise UserError(
            f"{name}: {times(pixels.shape[:-1])}, smaller than the network takes ({times(given.smallest)}); take it out"
        )
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(given.dtype))
    return Picture(Path(name).name, image, target)
