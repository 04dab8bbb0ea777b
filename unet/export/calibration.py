"""Images, with masks if there are any, on which an int8 network is calibrated and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unet.data.files import LabelMap, image_files, pair_files, require_folders
from unet.data.samples import evenly_spaced, read_item
from unet.data.source import Array, Item
from unet.errors import UserError
from unet.export.deployed import InputSpec
from unet.io.image_formats import read_image
from unet.labels import IGNORE_INDEX
from unet.network.geometry import times

MAX_IMAGES = 32
"""Images to calibrate on, and as many others to measure on."""
MAX_SIDE = {1: 2**16, 2: 512, 3: 64}
"""Samples along an axis of a calibration image, by the number of axes: every activation stays in memory."""
T = TypeVar("T")


@dataclass(frozen=True)
class LabelledImage:
    """An image (1, C, *S) as the network takes it, and its labels (1, *S) if there is a mask."""

    name: str
    image: Tensor
    target: Tensor | None


def calibration_images(
    folder: Path, spec: InputSpec, classes: Sequence[str], values: Mapping[Any, str] | None = None
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Return every second image of a folder to calibrate on and the others to measure on, at most ``MAX_IMAGES`` each.

    ``folder`` holds the images, or ``images/`` and, if there are any, ``masks/`` with a mask for each, matched by stem.

    Args:
        folder: images like those of the training.
        spec: the images the network takes; others are refused by name.
        classes: their names.
        values: stored value of a mask -> class name or ``ignore``; None: the label, and 255 for ignored pixels.
    """
    require_folders([folder], "calibration=FOLDER holds images like those of the training")
    images, masks = folder / "images", folder / "masks"
    reads: list[Callable[[], LabelledImage]]
    if images.is_dir() and masks.is_dir():
        named = {**dict(enumerate(classes)), IGNORE_INDEX: "ignore"} if values is None else values
        labels = rename_key(partial(LabelMap, named, classes))
        reads = [partial(read_pair, item, spec, len(classes)) for item in pair_files(images, masks, labels).values()]
    else:
        files = image_files(images if images.is_dir() else folder)
        reads = [partial(read_unlabelled, path, spec) for path in files.values()]
    if len(reads) < 2:
        raise UserError(
            f"calibration={folder}: {len(reads)} images; it needs at least two, every second one to measure on"
        )
    chosen = [reads[index]() for index in evenly_spaced(len(reads), 2 * MAX_IMAGES)]
    return chosen[::2], chosen[1::2]


def rename_key(make: Callable[[], T]) -> T:
    """Call ``make``; an error names the key ``values`` of this command for ``data.source.values``."""
    try:
        return make()
    except UserError as error:
        raise UserError(str(error).replace("data.source.values", "values")) from None


def read_pair(item: Item, spec: InputSpec, num_classes: int) -> LabelledImage:
    pixels, target = rename_key(partial(read_item, item, num_classes, len(spec.total_stride)))
    return to_labelled_image(item.name, pixels, spec, torch.from_numpy(target[None].astype(np.int64)))


def read_unlabelled(path: Path, spec: InputSpec) -> LabelledImage:
    return to_labelled_image(str(path), read_image(path, spatial_dims=len(spec.total_stride)), spec, None)


def to_labelled_image(name: str, pixels: Array, spec: InputSpec, target: Tensor | None) -> LabelledImage:
    """Convert an image (*S, C). Raises UserError naming the file if the network does not take it."""
    dims = len(spec.total_stride)
    expected = f"{spec.channels} channels of {spec.dtype} and {dims} spatial axes ({spec.axes})"
    if pixels.ndim != dims + 1 or pixels.shape[-1] != spec.channels or pixels.dtype != spec.dtype:
        raise UserError(
            f"{name}: {times(pixels.shape)} (channels last) of {pixels.dtype}, expected {expected}; take it out"
        )
    if any(n < least for n, least in zip(pixels.shape, spec.min_size, strict=False)):
        raise UserError(
            f"{name}: {times(pixels.shape[:-1])}, smaller than the network takes ({times(spec.min_size)}); take it out"
        )
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(spec.dtype))
    return LabelledImage(Path(name).name, image, target)


def center_crop(item: LabelledImage) -> LabelledImage:
    """Return the middle of an image, at most ``MAX_SIDE`` along an axis, without its mask."""
    size = item.image.shape[2:]
    most = MAX_SIDE[len(size)]
    window = [slice((n - min(n, most)) // 2, (n + min(n, most)) // 2) for n in size]
    return LabelledImage(item.name, item.image[:, :, *window], None)
