"""Warnings of a training about its data, before it starts."""

from collections.abc import Iterable, Iterator

from unet.data import SegmentationData
from unet.data.files import FilePair, and_more
from unet.data.image_range import MAX_SPACING_RATIO, range_warnings
from unet.data.samples import Samples, evenly_spaced, named_ranges
from unet.data.source import Item
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import open_stored
from unet.network.geometry import size_range
from unet.training.file_headers import declared_nodata, volume_grid

MAX_FILES = 256
"""Number of images whose EXIF orientation is read."""


def data_warnings(data: SegmentationData) -> Iterator[str]:
    """Yield a sentence for each reason to doubt the scores of a training on this data set."""
    if data.in_two_splits:
        first, second = data.in_two_splits[0]
        yield (
            f"{len(data.in_two_splits)} images are in two splits, such as {first.name} and {second.name}, so the test "
            f"metrics will be too high"
        )
    if text := missing_classes(data):
        yield text
    yield from image_warnings(data.samples.values())
    yield from grid_warnings(data.samples["train"])
    value, declaring, total = declared_nodata(data.samples["train"])
    options = data.source.read_options
    if 0 < declaring < total and value is not None and options.nodata is None and options.declared_nodata:
        yield (
            f"{declaring} of {total} training images declare that {value:.9g} is no data, the others do not: if it is "
            f"none there either, add data.source.nodata={value:.9g}"
        )


def image_warnings(splits: Iterable[Samples]) -> Iterator[str]:
    """Yield a sentence for each fault in the values of images, or in their EXIF orientation."""
    splits = list(splits)
    for text, names in range_warnings(named_ranges(splits)):
        yield f"{and_more(names, 'image')}: {text}" if names else text
    items = [part.items[index] for part in splits for index in evenly_spaced(len(part), MAX_FILES)]
    if rotated := [item.name for item in items if orientations_differ(item)]:
        yield (
            f"{and_more(rotated, 'image')}: an EXIF orientation that the mask does not have, and that is not applied; "
            f"if the mask was drawn on the image as viewers show it, rotate the image first"
        )


def missing_classes(data: SegmentationData) -> str | None:
    """Return a warning if a class has no pixel in the training split; None if all have."""
    counts = dict(zip(data.source.classes, data.samples["train"].label_counts, strict=True))
    missing = [name for name, count in counts.items() if count == 0]
    if not missing:
        return None
    if len(missing) == len(counts) - 1:
        (only,) = counts.keys() - set(missing)
        return f"the training images have no pixel of any class but {only}, so the network can only learn to predict it"
    return f"the training images have no pixel of {', '.join(missing)}, which the network cannot learn"


def orientations_differ(item: Item) -> bool:
    """Return whether viewers show the image of an item in another orientation than its mask."""
    if not isinstance(item.read, FilePair):
        return False
    files = item.read.image, item.read.mask
    image, mask = (open_stored(file).orientation if name_parts(file)[1] in SUFFIXES else 1 for file in files)
    return image != mask


def grid_warnings(samples: Samples) -> Iterator[str]:
    """Warn of NIfTI images whose voxels differ in their directions or their size."""
    grid = volume_grid(samples)
    if not grid:
        return
    if grid["axes"] is None:
        yield "the axes of the images point in different directions, and they are used as stored: reorient the images"
    low, high = grid["spacing"]
    if any(b > MAX_SPACING_RATIO * a for a, b in zip(low, high, strict=True)):
        sizes = size_range(low, high)
        yield f"the voxels of the images differ in size ({sizes} mm), which training ignores: resample the images"
