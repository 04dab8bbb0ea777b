"""Warnings about the images of a training or an evaluation."""

from collections.abc import Iterable

from unet.data.files import FilePair, and_more
from unet.data.image_range import range_warnings
from unet.data.samples import Samples, evenly_spaced
from unet.data.source import Item
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import open_stored

MAX_FILES = 64
"""Number of files of a split whose EXIF orientation is read."""


def data_warnings(splits: Iterable[Samples]) -> list[str]:
    """Return a message for each fault in the values of the images, or in their EXIF orientation."""
    splits = list(splits)
    images = [
        (item.name, values) for samples in splits for item, values in zip(samples.items, samples.ranges, strict=True)
    ]
    messages = [text + (f" ({and_more(names, 'image')})" if names else "") for text, names in range_warnings(images)]
    turned = [
        item.name
        for samples in splits
        for item in (samples.items[index] for index in evenly_spaced(len(samples), MAX_FILES))
        if is_turned(item)
    ]
    if turned:
        messages.append(
            f"{and_more(turned, 'image')}: an EXIF orientation that the mask does not have, and that is not applied; "
            f"if the mask was drawn on the image as viewers show it, rotate the image first"
        )
    return messages


def is_turned(item: Item) -> bool:
    """Return whether viewers show the image of an item in another orientation than its mask."""
    if not isinstance(item.read, FilePair):
        return False
    files = item.read.image, item.read.mask
    image, mask = (open_stored(file).orientation if name_parts(file)[1] in SUFFIXES else 1 for file in files)
    return image != mask
