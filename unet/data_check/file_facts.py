"""Facts about the files of one item, each read once; :mod:`unet.data_check.findings` judges them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from unet.data.files import FilePair
from unet.data.image_range import ImageRange, image_range
from unet.data.mask_file import Key, MaskFile
from unet.data.samples import file_dtype, hash_pixels
from unet.data.source import Array, Color, Item
from unet.data_check.mask_values import find_levels, looks_lossy, nearest_levels
from unet.data_check.shapes import Shapes, center_crop, measure_objects
from unet.errors import UserError
from unet.io.arrays import voxel_grid
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import open_stored

QUARTER_TURNS = (5, 6, 7, 8)  # orientations that exchange height and width
LOSSY_SUFFIXES = (".jpg", ".jpeg")

MAX_VALUES = 4096  # number of values of a mask whose pixels are counted, the most frequent first
MAX_MEASURED_VALUES = 64  # number of values of a mask above which its objects are not measured


@dataclass(frozen=True)
class FileFormat:
    """The format in which a file stores its pixels.

    Attributes:
        name: format and mode, such as ``PNG RGB``, or the suffix of an array.
        orientation: the orientation that the file asks for and the reader does not apply; 1: none.
        axes, spacing: directions of the axes and size of the voxels in mm, of a NIfTI file.
    """

    name: str
    orientation: int = 1
    axes: str = ""
    spacing: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageFacts(ImageRange):
    """Facts about an image (*S, C).

    Attributes:
        format: the format of its file.
        size, channels: of the array.
        num_infinite: number of infinite values.
        digest: equal for equal pixels.
    """

    format: FileFormat
    size: tuple[int, ...]
    channels: int
    num_infinite: int
    digest: bytes


@dataclass(frozen=True)
class MaskFacts:
    """Facts about a mask (*S) as its file stores it; of an item without files, about its labels.

    Attributes:
        format: the format of its file.
        size: of the array.
        counts: pixels of each key, at most the ``MAX_VALUES`` most frequent.
        lossy: whether compression has blurred its values.
        shapes: the objects of each key, or of each level if it is lossy; empty if they were not measured.
        digest: equal for equal pixels.
        palette: the colours of its values, if it has a palette.
        has_names: whether its values are class names, from JSON annotations.
    """

    format: FileFormat
    size: tuple[int, ...]
    counts: dict[Key, int]
    lossy: bool
    shapes: dict[Key, Shapes]
    digest: bytes
    palette: dict[int, Color] | None = None
    has_names: bool = False


@dataclass(frozen=True)
class ItemFacts:
    """Facts about an item; whatever cannot be read has an error message instead.

    Attributes:
        item: the item.
        split: its split.
        image, mask: facts about the two files.
        errors: one message for each file that cannot be read.
    """

    item: Item
    split: str
    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    errors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.item.name

    @property
    def files(self) -> FilePair | None:
        return self.item.read if isinstance(self.item.read, FilePair) else None


def read_facts(item: Item, split: str, measure: bool, with_image: bool = True) -> ItemFacts:
    """Read an item, or its mask alone, without raising an exception; ``measure``: also measure the mask's objects."""
    errors: list[str] = []
    image, mask = None, None
    if not isinstance(files := item.read, FilePair):
        with collect_errors(item.name, errors):
            pixels, target = item.read()
            image = image_facts(pixels, FileFormat("in memory"))
            mask = mask_facts(MaskFile(target, target.ndim), image.format, measure)
        return ItemFacts(item, split, image, mask, tuple(errors))
    with collect_errors(str(files.mask), errors):
        content = files.read_mask()
        mask = mask_facts(content, read_format(files.mask), measure, name_parts(files.mask)[1] in LOSSY_SUFFIXES)
    if not with_image:
        return ItemFacts(item, split, None, mask, tuple(errors))
    with collect_errors(str(files.image), errors):
        size = mask.size if mask else spatial_size(files.image)
        pixels = files.read_image(size)
        image = image_facts(pixels, read_format(files.image), file_dtype(item, pixels))
    return ItemFacts(item, split, image, mask, tuple(errors))


@contextmanager
def collect_errors(name: str, errors: list[str]) -> Iterator[None]:
    """Append an exception to ``errors`` as a message of one line."""
    try:
        yield
    except UserError as error:
        errors.append(str(error))
    except Exception as error:  # a decoder may raise anything
        errors.append(f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})")


def read_format(path: Path) -> FileFormat:
    """Return the format of a file from its header; of annotations, the suffix."""
    if (suffix := name_parts(path)[1]) not in SUFFIXES:
        return FileFormat(suffix)
    stored = open_stored(path)
    axes, spacing = ("", ()) if stored.affine is None else voxel_grid(stored.affine)
    return FileFormat(stored.format, stored.orientation, axes, spacing)


def spatial_size(path: Path) -> tuple[int, ...]:
    """Return the spatial size of an image whose mask cannot be read; of an array, all its axes."""
    stored = open_stored(path)
    return stored.shape[: stored.spatial_dims]


def image_facts(image: Array, file_format: FileFormat, dtype: np.dtype | None = None) -> ImageFacts:
    """Return the facts about an image (*S, C); for ``dtype`` see :func:`image_range`."""
    infinite = int(np.isinf(image).sum()) if image.dtype.kind == "f" else 0
    return ImageFacts(
        format=file_format,
        size=image.shape[:-1],
        channels=image.shape[-1],
        num_infinite=infinite,
        digest=hash_pixels(image),
        **asdict(image_range(image, dtype)),
    )


def mask_facts(mask: MaskFile, file_format: FileFormat, measure: bool, lossy: bool = False) -> MaskFacts:
    """Return the facts about a mask; ``lossy``: its file format is lossy."""
    indices, keys = mask.index(colors=not mask.is_grayscale)
    pixel_counts = np.bincount(indices.ravel(), minlength=len(keys))
    by_frequency = np.argsort(-pixel_counts, kind="stable")[:MAX_VALUES]
    counts = {keys[index]: int(pixel_counts[index]) for index in by_frequency}
    lossy = (lossy and len(keys) > 2) or looks_lossy(counts)
    shapes: dict[Key, Shapes] = {}
    measurable = find_levels(counts) if lossy else list(counts)
    if measure and 0 < len(measurable) <= MAX_MEASURED_VALUES:
        crop = center_crop(indices)
        if lossy:
            crop = np.array([measurable.index(level) for level in nearest_levels(keys, measurable)])[crop]
        values = range(len(measurable)) if lossy else by_frequency.tolist()
        shapes = {key: measure_objects(crop == value) for key, value in zip(measurable, values, strict=True)}
    return MaskFacts(
        file_format, indices.shape, counts, lossy, shapes, hash_pixels(mask.pixels), mask.palette, bool(mask.names)
    )
