"""Images, and masks where there are any, on which a variant is calibrated and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.data.files import LabelMap, image_files, read_pair, require_folders
from unet.data.formats import read_image
from unet.data.source import Array
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
    root = folder / "images" if (folder / "images").is_dir() else folder
    images = image_files(root)
    masks = image_files(folder / "masks") if root != folder and (folder / "masks").is_dir() else {}
    if len(images) < 2:
        raise UserError(f"{root}: {len(images)} images; calibration needs at least two, every second one to measure on")
    if masks and images.keys() - masks.keys():
        stem = min(images.keys() - masks.keys())
        raise UserError(f"{images[stem]}: no mask {folder / 'masks' / stem}.*; add it or take the masks away")
    stored = values or {**dict(enumerate(classes)), IGNORE_INDEX: "ignore"}
    labels = LabelMap(stored, classes)
    stems = list(images)
    chosen = np.unique(np.linspace(0, len(stems) - 1, min(2 * MOST, len(stems))).astype(int))
    read = [picture(images[stems[place]], masks.get(stems[place]), given, labels) for place in chosen]
    return read[::2], read[1::2]


def picture(path: Path, mask: Path | None, given: Given, labels: LabelMap) -> Picture:
    """Read an image and its mask; raise UserError naming the file unless it is one the network takes."""
    dims = len(given.stride)
    if mask is None:
        pixels, target = read_image(path, spatial_dims=dims), None
    else:
        try:
            pixels, target = read_pair(path, mask, labels, None)
        except UserError as error:
            raise UserError(str(error).replace("data.source.values", "values")) from None
        if target.shape != pixels.shape[:-1]:
            sizes = times(target.shape), times(pixels.shape[:-1])
            raise UserError(f"{path}: its mask is {sizes[0]}, the image {sizes[1]}; they must be of one size")
    checked(path, pixels, given)
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(given.dtype))
    return Picture(path.name, image, None if target is None else torch.from_numpy(target[None].astype(np.int64)))


def checked(path: Path, pixels: Array, given: Given) -> None:
    """Raise UserError where an image (*S, C) is none the network takes."""
    dims = len(given.stride)
    expected = f"{given.channels} channels of {given.dtype} and {dims} spatial axes ({AXES[dims]})"
    if pixels.ndim != dims + 1 or pixels.shape[-1] != given.channels or pixels.dtype != given.dtype:
        raise UserError(f"{path}: {times(pixels.shape)} (channels last) of {pixels.dtype}, expected {expected}")
    if any(n < least for n, least in zip(pixels.shape, given.smallest, strict=False)):
        raise UserError(f"{path}: {times(pixels.shape[:-1])}, smaller than the network takes ({times(given.smallest)})")
