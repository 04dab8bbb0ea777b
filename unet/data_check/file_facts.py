"""What is in the files of one item, each read once; nothing is judged here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.files import FilePair
from unet.data.samples import hash_pixels
from unet.data.source import Array, Item
from unet.data_check.mask_values import Key, find_levels, index_values, looks_lossy, nearest_levels
from unet.data_check.shapes import Shapes, center_crop, measure_objects
from unet.errors import UserError
from unet.io.image_formats import PICTURES, name_parts, read_image

ORIENTATION = 0x0112
"""EXIF's tag for how a camera was held; 1: as the pixels are stored."""

QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

LOSSY_SUFFIXES = (".jpg", ".jpeg")
KEPT, SHAPED = 4096, 64
"""Of how many values of a mask the pixels are counted one by one, and of how many the objects are measured."""


@dataclass(frozen=True)
class FileFormat:
    """How a file stores its pixels.

    Attributes:
        kind: format and mode, such as ``PNG RGB``, or an array's type.
        turned: the EXIF orientation that reading leaves to be applied; 1: none.
        narrowed: whether Pillow reads it with fewer bits than it has.
    """

    kind: str
    turned: int = 1
    narrowed: bool = False


@dataclass(frozen=True)
class ImageFacts:
    """An image as it is read.

    Attributes:
        stored: how the file stores it.
        size, channels, dtype: of the array (*S, C).
        low, high: the least and the largest finite value; NaN where there is none.
        not_finite: how many values are NaN or infinite.
        digest: equal for equal pixels.
    """

    stored: FileFormat
    size: tuple[int, ...]
    channels: int
    dtype: str
    low: float
    high: float
    not_finite: int
    digest: bytes


@dataclass(frozen=True)
class MaskFacts:
    """A mask as it is stored, or, of an item without files, its labels.

    Attributes:
        stored: how the file stores it.
        size: of the array (*S).
        counts: pixels of each key, at most the ``KEPT`` commonest.
        lossy: whether its values blur into each other.
        shapes: the objects of each key, of its levels where it is lossy; empty where they were not measured.
        digest: equal for equal pixels.
    """

    stored: FileFormat
    size: tuple[int, ...]
    counts: dict[Key, int]
    lossy: bool
    shapes: dict[Key, Shapes]
    digest: bytes


@dataclass(frozen=True)
class ItemFacts:
    """An item; of what could not be read, there is a fault instead.

    Attributes:
        name: what messages call it.
        split: where it belongs.
        item: the item itself.
        image, mask: what was read.
        faults: sentences on what could not be.
    """

    name: str
    split: str
    item: Item
    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    faults: tuple[str, ...] = ()

    @property
    def files(self) -> FilePair | None:
        return self.item.read if isinstance(self.item.read, FilePair) else None


def read_facts(item: Item, split: str, measured: bool) -> ItemFacts:
    """Read an item and never raise; ``measured``: measure its objects too."""
    faults: list[str] = []
    image, mask, spatial_dims = None, None, None
    if not isinstance(files := item.read, FilePair):
        with collect_errors(item.name, faults):
            pixels, target = item.read()
            image = image_facts(pixels, FileFormat("in memory"))
            mask = mask_facts(target, target.ndim, image.stored, measured)
        return ItemFacts(item.name, split, item, image, mask, tuple(faults))
    with collect_errors(str(files.mask), faults):
        pixels, spatial_dims = files.labels.pixels(files.mask)
        lossy = name_parts(files.mask)[1] in LOSSY_SUFFIXES
        mask = mask_facts(pixels, spatial_dims, read_format(files.mask), measured, lossy)
    with collect_errors(str(files.image), faults):
        image = image_facts(read_image(files.image, files.mode, spatial_dims), read_format(files.image))
    return ItemFacts(item.name, split, item, image, mask, tuple(faults))


@contextmanager
def collect_errors(name: str, errors: list[str]) -> Iterator[None]:
    """Add to ``errors``, in one line, what goes wrong with a file."""
    try:
        yield
    except UserError as error:
        errors.append(str(error))
    except Exception as error:  # a decoder may fail in any way; the others are still to be read
        errors.append(f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})")


def read_format(path: Path) -> FileFormat:
    """Read how a picture is stored from its header; of an array, take the suffix."""
    if name_parts(path)[1] not in PICTURES:
        return FileFormat(name_parts(path)[1])
    with Image.open(path) as image:
        # Pillow turns a TIFF as it reads it, and nothing else.
        turned = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
        narrowed = image.mode in ("RGB", "RGBA", "LA") and any("16" in str(tile[3]) for tile in image.tile)
        return FileFormat(f"{image.format} {image.mode}", turned if turned in range(1, 9) else 1, narrowed)


def image_facts(image: Array, stored: FileFormat) -> ImageFacts:
    """Return the facts of an image (*S, C)."""
    known = np.isfinite(image) if image.dtype.kind == "f" else True
    broken = image.size - int(np.count_nonzero(known)) if known is not True else 0
    finite = image[known] if broken else image
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    return ImageFacts(
        stored, image.shape[:-1], image.shape[-1], str(image.dtype), low, high, broken, hash_pixels(image)
    )


def mask_facts(pixels: Array, spatial_dims: int, stored: FileFormat, measured: bool, lossy: bool = False) -> MaskFacts:
    """Return the facts of a mask (*S) or (*S, C) as it is stored; ``lossy``: its format is known to blur."""
    places, keys, held = index_values(pixels, spatial_dims)
    order = np.argsort(-held, kind="stable")[:KEPT]
    counts = {keys[place]: int(held[place]) for place in order}
    lossy = (lossy and len(keys) > 2) or looks_lossy(counts)
    shapes: dict[Key, Shapes] = {}
    shaped = find_levels(counts) if lossy else list(counts)
    if measured and 0 < len(shaped) <= SHAPED:
        part = center_crop(places)
        if lossy:
            part = np.array([shaped.index(level) for level in nearest_levels(keys, shaped)])[part]
            values = list(range(len(shaped)))
        else:
            values = [int(place) for place in order]
        shapes = {key: measure_objects(part == value) for key, value in zip(shaped, values, strict=True)}
    return MaskFacts(stored, places.shape, counts, lossy, shapes, hash_pixels(pixels))
