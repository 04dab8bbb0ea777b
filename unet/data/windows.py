"""Divide large images into windows, each an item that is read on its own, so that they need not fit into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product

from unet.data.files import FilePair
from unet.data.mask_reading import open_mask
from unet.data.source import Item
from unet.errors import UserError
from unet.io.image_formats import StoredImage, name_parts
from unet.io.image_reader import open_stored
from unet.network.geometry import Window, times

MIN_WINDOW_SIZE = 64


def check_window_size(length: object) -> int | None:
    """Return ``data.source.window_size``. Raises UserError unless it is None or an integer that is large enough."""
    if length is None or (isinstance(length, int) and not isinstance(length, bool) and length >= MIN_WINDOW_SIZE):
        return length
    raise UserError(
        f"data.source.window_size: expected null or an integer of at least {MIN_WINDOW_SIZE}, found {length!r}"
    )


def divide_item(item: Item, length: int) -> list[Item]:
    """Return the windows of an item with at most ``length`` pixels along every axis; itself if it is not larger.

    JSON annotations are drawn on the whole image, so their items are not divided.

    Raises:
        UserError: a file of a larger image cannot be read in parts, or see :func:`mask_size`.
    """
    pair = item.read
    assert isinstance(pair, FilePair)
    if pair.shapes is not None or name_parts(pair.mask)[1] == ".json":
        return [item]
    mask = open_mask(pair.mask, pair.image)
    if max(mask.shape, default=0) <= length:
        return [item]
    size = mask_size(mask, pair.labels.has_colors)
    for stored in (mask, *(open_stored(path, pair.options.pages) for path in (pair.image, *pair.more_channels))):
        if not stored.in_parts:
            raise UserError(
                f"{stored.path}: {times(size)} pixels in a file that cannot be read in parts, as "
                f"data.source.window_size={length} needs it; save it as a TIFF in tiles, .npy or .nii"
            )
    return [
        Item(f"{item.name} {describe_window(window)}", replace(pair, window=window, size=size))
        for window in grid_windows(size, length)
    ]


def mask_size(mask: StoredImage, has_colors: bool) -> tuple[int, ...]:
    """Return the size of a mask from its header alone.

    Raises:
        UserError: it has an alpha channel, whose meaning depends on the whole mask, or an axis of length 1, which may
            be a channel.
    """
    dims = mask.spatial_dims or len(mask.shape) - (has_colors and mask.shape[-1] in (3, 4))
    size, channels = mask.shape[:dims], mask.shape[dims:]
    if 1 in mask.shape or channels in ((2,), (4,)):
        raise UserError(
            f"{mask.path}: a mask of {times(mask.shape)}; data.source.window_size needs one label or colour per pixel, "
            f"without alpha and without axes of length 1"
        )
    return size


def grid_windows(size: Sequence[int], length: int) -> Iterator[Window]:
    """Yield windows of nearly equal sizes that divide an image, at most ``length`` long along every axis."""
    axes = []
    for n in size:
        count = -(-n // length)
        bounds = [n * index // count for index in range(count + 1)]
        axes.append([slice(begin, end) for begin, end in pairwise(bounds)])
    yield from product(*axes)


def describe_window(window: Window) -> str:
    """Return a window as ``[0:512, 512:1024]``."""
    return f"[{', '.join(f'{part.start}:{part.stop}' for part in window)}]"
