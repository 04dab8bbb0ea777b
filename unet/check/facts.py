"""What is in the files of one item, each read once; nothing is judged here."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from unet.check.levels import Key, coded, levels_of, looks_lossy, nearest
from unet.check.shapes import Shapes, middle, shapes_of
from unet.data.files import FilePair
from unet.data.formats import PICTURES, name_parts, read_image
from unet.data.samples import digest
from unet.data.source import Array, Item
from unet.errors import UserError

ORIENTATION = 0x0112
"""EXIF's tag for how a camera was held; 1: as the pixels are stored."""

QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

LOSSY = (".jpg", ".jpeg")
KEPT, SHAPED = 4096, 64
"""Of how many values of a mask the pixels are counted one by one, and of how many the objects are measured."""


@dataclass(frozen=True)
class Stored:
    """How a file stores its pixels.

    Attributes:
        kind: format and mode, such as ``PNG RGB``, or an array's type.
        turned: the EXIF orientation that reading leaves to be applied; 1: none.
        narrowed: whether Pillow reads it with fewer bits than it has.
        palette: a palette image's colours by index, where it is one.
    """

    kind: str
    turned: int = 1
    narrowed: bool = False
    palette: dict[int, tuple[int, ...]] = field(default_factory=dict)


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

    stored: Stored
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

    stored: Stored
    size: tuple[int, ...]
    counts: dict[Key, int]
    lossy: bool
    shapes: dict[Key, Shapes]
    digest: bytes


@dataclass(frozen=True)
class Facts:
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


def examine(item: Item, split: str, measured: bool) -> Facts:
    """Read an item, whatever it is; ``measured``: its objects too. Never raises."""
    if isinstance(item.read, FilePair):
        return examine_files(item, item.read, split, measured)
    faults: list[str] = []
    with Reading(item.name, faults):
        image, target = item.read()
        kind = Stored("in memory")
        return Facts(item.name, split, item, image_facts(image, kind), mask_facts(target, target.ndim, kind, measured))
    return Facts(item.name, split, item, faults=tuple(faults))


def examine_files(item: Item, files: FilePair, split: str, measured: bool) -> Facts:
    faults: list[str] = []
    image, mask, spatial_dims = None, None, None
    with Reading(str(files.mask), faults):
        pixels, spatial_dims = files.labels.pixels(files.mask)
        stored = how_stored(files.mask)
        mask = mask_facts(pixels, spatial_dims, stored, measured, name_parts(files.mask)[1] in LOSSY)
    with Reading(str(files.image), faults):
        array = read_image(files.image, files.mode, spatial_dims)
        image = image_facts(array, how_stored(files.image))
    return Facts(item.name, split, item, image, mask, tuple(faults))


class Reading:
    """A ``with`` block in which a file may fail: what went wrong is added to ``faults``, in one sentence."""

    def __init__(self, name: str, faults: list[str]):
        self.name, self.faults = name, faults

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, UserError):
            self.faults.append(str(error))
        elif isinstance(error, Exception):  # a decoder may fail in any way; the others are still to be read
            self.faults.append(f"{self.name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})")
        return error is None or isinstance(error, Exception)


def how_stored(path: Path) -> Stored:
    """From a picture's header; of an array the suffix says enough."""
    if name_parts(path)[1] not in PICTURES:
        return Stored(name_parts(path)[1])
    with Image.open(path) as image:
        # Pillow turns a TIFF as it reads it, and nothing else.
        turned = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
        narrowed = image.mode in ("RGB", "RGBA", "LA") and any("16" in str(tile[3]) for tile in image.tile)
        palette = image.getpalette() if image.mode == "P" else None
        colours = [tuple(palette[place : place + 3]) for place in range(0, len(palette), 3)] if palette else []
        turned = turned if turned in range(1, 9) else 1
        return Stored(f"{image.format} {image.mode}", turned, narrowed, dict(enumerate(colours)))


def image_facts(image: Array, stored: Stored) -> ImageFacts:
    """Of an image (*S, C)."""
    finite, broken = image, 0
    if image.dtype.kind == "f":
        known = np.isfinite(image)
        broken = image.size - int(np.count_nonzero(known))
        finite = image[known] if broken else image
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    return ImageFacts(stored, image.shape[:-1], image.shape[-1], str(image.dtype), low, high, broken, digest(image))


def mask_facts(pixels: Array, spatial_dims: int, stored: Stored, measured: bool, lossy: bool = False) -> MaskFacts:
    """Of a mask (*S) or (*S, C) as it is stored; ``lossy``: its format is known to blur."""
    places, keys, held = coded(pixels, spatial_dims)
    order = np.argsort(-held, kind="stable")[:KEPT]
    counts = {keys[place]: int(held[place]) for place in order}
    lossy = (lossy and len(keys) > 2) or looks_lossy(counts)
    shapes: dict[Key, Shapes] = {}
    shaped = levels_of(counts) if lossy else list(counts)
    if measured and 0 < len(shaped) <= SHAPED:
        part = middle(places)
        if lossy:
            part = np.array([shaped.index(level) for level in nearest(keys, shaped)])[part]
            values = list(range(len(shaped)))
        else:
            values = [int(place) for place in order]
        shapes = dict(zip(shaped, shapes_of(part, values), strict=True))
    return MaskFacts(stored, places.shape, counts, lossy, shapes, digest(pixels))
