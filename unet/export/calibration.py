"""Read the images, and masks if there are any, for the calibration and the test of an int8 network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.data.files import image_files, pair_files, require_folders
from unet.data.label_map import LabelMap
from unet.data.samples import evenly_spaced, read_item
from unet.data.source import Item
from unet.errors import UserError
from unet.export.deployed import InputSpec
from unet.io.image_reader import AS_STORED, ReadOptions, open_image
from unet.labels import IGNORE_INDEX
from unet.network.geometry import times

MAX_IMAGES = 32
"""Images for calibration, and the same number for the test."""
MAX_SIDE = {1: 2**16, 2: 512, 3: 64}
"""Largest side of a calibration image by the number of axes: every activation stays in memory."""


@dataclass(frozen=True)
class LabelledImage:
    """An image (1, C, *S) in the dtype of the network's input, with labels (1, *S) if there is a mask."""

    name: str
    image: Tensor
    target: Tensor | None


def calibration_images(
    folder: Path,
    spec: InputSpec,
    classes: Sequence[str],
    values: Mapping[Any, str] | None = None,
    reading: ReadOptions = AS_STORED,
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Return calibration images and test images, every second image of a folder each, at most ``MAX_IMAGES``.

    They are read with the options ``reading``, those of the training.
    ``folder`` has images, or ``images/`` and, optionally, ``masks/`` matched by stem. ``values`` maps the value of a
    mask to a class name or ``ignore``; None: the label, and 255 for ignored pixels.
    """
    require_folders([folder], "calibration=FOLDER holds images like the training images")
    image_folder, masks = folder / "images", folder / "masks"
    if image_folder.is_dir() and masks.is_dir():
        class_names = {**dict(enumerate(classes)), IGNORE_INDEX: "ignore"} if values is None else values
        with rename_key():
            labels = LabelMap(class_names, classes)
        items = list(pair_files(image_folder, masks, labels, options=reading).values())
    else:
        items = list(image_files(image_folder if image_folder.is_dir() else folder).values())
    if len(items) < 2:
        raise UserError(f"calibration={folder}: {len(items)} images; add images, at least two are required")
    indices = evenly_spaced(len(items), 2 * MAX_IMAGES)
    images = [read_example(items[index], spec, len(classes), reading) for index in indices]
    return images[::2], images[1::2]


@contextmanager
def rename_key() -> Iterator[None]:
    """Replace the key ``data.source.values`` in an error message by ``values``."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("data.source.values", "values")) from None


def read_example(item: Item | Path, spec: InputSpec, num_classes: int, reading: ReadOptions) -> LabelledImage:
    """Read an image with or without a mask. Raises UserError if it does not match the specification."""
    dims = len(spec.total_stride)
    if isinstance(item, Path):
        path, pixels, target = item, open_image(item, dims, reading, channels=spec.channels).pixels(), None
    else:
        with rename_key():
            path, (pixels, target) = Path(item.name), read_item(item, num_classes, dims)
    if pixels.dtype.kind == "f" and (missing := np.isnan(pixels)).any():  # the network replaces them by the mean
        pixels = np.where(missing, np.array(spec.mean, np.float32), pixels)
        pixels = pixels.round().astype(spec.dtype) if np.dtype(spec.dtype).kind == "u" else pixels
    if pixels.ndim != dims + 1 or pixels.shape[-1] != spec.channels or not np.can_cast(pixels.dtype, spec.dtype):
        raise UserError(
            f"{path}: {times(pixels.shape)} (channels last) of {pixels.dtype}, expected {spec.channels} channels of "
            f"{spec.dtype} and {dims} spatial axes ({spec.axes}); remove it"
        )
    size, minimum = pixels.shape[:-1], spec.min_size
    if any(n < m for n, m in zip(size, minimum, strict=True)):
        raise UserError(f"{path}: {times(size)}, smaller than the network's minimum ({times(minimum)}); remove it")
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(spec.dtype))
    return LabelledImage(path.name, image, None if target is None else torch.from_numpy(target[None].astype(np.int64)))


def center_crop(image: Tensor) -> Tensor:
    """Return the center of an image (1, C, *S), at most ``MAX_SIDE`` along an axis."""
    limit = MAX_SIDE[image.ndim - 2]
    return image[:, :, *(slice((n - min(n, limit)) // 2, (n + min(n, limit)) // 2) for n in image.shape[2:])]
