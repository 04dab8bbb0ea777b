"""Read TIFF files with all their channels and bits: single images in parts, stacks of pages at once."""

import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from tifffile import PHOTOMETRIC, PLANARCONFIG

from unet.errors import UserError
from unet.io.image_formats import INSTALL_CODECS, Array, StoredImage, errors_of_reading, require_numbers
from unet.io.pictures import BILEVEL, CHANNELS, DISPLAY_MODES, read_with_pillow
from unet.network.geometry import Window

Read = Callable[[Window], Array]
"""window -> its values."""
MAX_SEGMENT = 2**28
"""Bytes of a decompressed strip or tile above which an image is read at once."""
PAGES = ("channels", "slices")
"""What the pages of a file may be: ``data.source.pages``."""
ORIENTATION, GDAL_NODATA = 274, 42113
"""Tags of a page."""
PILLOW_MODES = {
    (1, 1, 1): "1",
    (1, 8, 1): "L",
    (1, 16, 1): "I;16",
    (1, 32, 3): "F",
    (3, 8, 1): "RGB",
    (4, 8, 1): "RGBA",
}
"""Channels, bits and sample format of the pages that Pillow reads exactly, and its mode."""


# A value such as -3.40282e+38, which tifffile reports for every page, is parsed here.
logging.getLogger("tifffile").addFilter(lambda record: "GDAL_NODATA" not in record.getMessage())


def open_tiff(path: Path, pages: str | None = None) -> StoredImage:
    """Open a TIFF, BigTIFF, GeoTIFF, ImageJ or OME file: an image, or a stack of pages.

    Thumbnails and overviews among the pages are left out, and GDAL's mask says where there is no data. The values of a
    palette image are its indices, those of a bilevel image 0 and 1; ``palette`` has the displayed values. Where the
    package imagecodecs is missing, Pillow decompresses what it reads exactly.

    Args:
        path: the file.
        pages: whether several pages are ``channels`` or ``slices``; None: as the axes in the metadata of ImageJ, OME or
            tifffile say, and slices without any.

    Raises:
        UserError: the file is damaged, or its compression, colour space or axes are not supported.
    """
    with errors_of_reading(path, "an image"), tifffile.TiffFile(path) as tiff:
        if is_part_of_ome(tiff):
            tiff.is_ome = False  # before tiff.series is read
        pages_of_file: list[Any] = list(tiff.pages)
        images = [page for page in pages_of_file if not (page.is_reduced or page.is_mask)]
        if not images:
            raise ValueError("it holds no image")
        page, series = images[0], tiff.series[0]
        require_numbers(np.dtype(page.dtype or object), len(page.shape), path)
        mode = None if can_decode(tiff, page) else pillow_mode(path, page)
        if len(images) > 1 or math.prod(series.shape) > math.prod(page.shape):
            if math.prod(series.shape) < sum(math.prod(image.shape) for image in images):
                raise UserError(
                    f"{path}: {len(images)} pages of different sizes or kinds, expected the slices of one volume or "
                    f"the channels of one image; divide it"
                )
            indices = [image.index for image in images]
            shape, dims, read, in_parts = open_stack(path, series, indices, mode, pages, tiff.is_ome)
        else:
            shape, dims, read, in_parts = open_page(path, page, mode)
        is_inverted = mode is None and page.photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind in "bu"
        is_array = page.dtype.kind == "b" and page.software == "tifffile.py"  # which stores True as 1, not as black
        white = 2**page.bitspersample - 1 if is_inverted and not is_array else None
        mask = next((one for one in pages_of_file if is_mask_of(one, page)), None)
        orientation = page.tags.valueof(ORIENTATION, 1)
        return StoredImage(
            path,
            shape,
            dims,
            partial(read_displayed, read, white),
            f"TIFF {page.photometric.name}",
            np.dtype(page.dtype if page.photometric != PHOTOMETRIC.PALETTE and page.bitspersample > 1 else np.uint8),
            BILEVEL if page.bitspersample == 1 else color_map(page),
            orientation if orientation in range(2, 9) else 1,
            parse_nodata(page.tags.valueof(GDAL_NODATA)),
            open_page(path, mask, None)[2] if dims == 2 and mask is not None else None,
            in_parts=in_parts,
        )


def is_mask_of(mask: Any, page: Any) -> bool:
    """Return whether a page is GDAL's mask of the pixels of another that have data."""
    return mask.is_mask and not mask.is_reduced and mask.bitspersample == 1 and mask.shape[:2] == page.shape[:2]


def is_part_of_ome(tiff: tifffile.TiffFile) -> bool:
    """Return whether a file is one of several with the pages of an OME stack; then it is read by its own pages alone.

    tifffile would read the others too, replace those that are missing by zeros, and return the first image of all.
    """
    return tiff.is_ome and len(set(re.findall(r"<(?:\w+:)?UUID\b[^>]*>\s*([^<\s]+)", tiff.ome_metadata or ""))) > 1


def can_decode(tiff: tifffile.TiffFile, page: Any) -> bool:
    """Return whether tifffile decodes a page to its displayed colours; it may need imagecodecs for that."""
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression in (6, 7, 34892):  # JPEG is decoded to RGB
        pass
    elif page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE):
        return False
    if page.is_memmappable or not page.databytecounts[0]:
        return True
    tiff.filehandle.seek(page.dataoffsets[0])
    try:
        page.decode(tiff.filehandle.read(page.databytecounts[0]), 0, jpegtables=page.jpegtables)
    except Exception as error:  # the reason is in the text alone; of damaged data, which reading reports
        return "imagecodecs" not in str(error)
    return True


def pillow_mode(path: Path, page: Any) -> str:
    """Return the mode in which Pillow reads a page exactly. Raises UserError if it does not."""
    mode = PILLOW_MODES.get((page.samplesperpixel, page.bitspersample, page.sampleformat))
    if page.photometric == PHOTOMETRIC.PALETTE and page.bitspersample <= 8:
        mode = "P"
    is_exact = page.tags.valueof(ORIENTATION, 1) == 1 and (not page.extrasamples or page.extrasamples == (2,))
    if is_exact and mode is not None:
        with path.open("rb") as file, Image.open(file) as image:
            image.seek(page.index)
            if image.mode in (mode, *DISPLAY_MODES):
                return DISPLAY_MODES.get(image.mode, mode)
    raise UserError(
        f"{path}: a TIFF with {page.compression.name} compression and {page.photometric.name} colours, which needs "
        f"imagecodecs; run: {INSTALL_CODECS}, or save it uncompressed, as grey or RGB"
    )


def open_page(path: Path, page: Any, mode: str | None) -> tuple[tuple[int, ...], int, Read, bool]:
    """Return shape (H, W) or (H, W, C) of a page, its number of spatial axes, how to read it, and whether in parts.

    ``mode`` is that of Pillow if Pillow is to decode it.
    """
    index, channels = page.index, CHANNELS.get(mode, 1) if mode else page.samplesperpixel
    shape = (page.imagelength, page.imagewidth, *((channels,) if channels > 1 else ()))
    is_planar = channels > 1 and page.planarconfig == PLANARCONFIG.SEPARATE
    if page.imagedepth > 1:
        raise UserError(f"{path}: a TIFF of depth {page.imagedepth}; save it as a stack of pages")
    is_large = math.prod(page.chunks) * page.dtype.itemsize > MAX_SEGMENT
    if is_large and mode is None and not page.is_memmappable:
        whole = cache(lambda: move_channels(tifffile.imread(path, key=index), is_planar))
        return shape, 2, read_from(whole), False
    if mode is not None:
        return shape, 2, read_from(cache(lambda: read_with_pillow(path, mode, index))), False
    if page.is_memmappable:
        if page.dataoffsets[0] + math.prod(shape) * page.dtype.itemsize > path.stat().st_size:
            raise UserError(f"{path}: the file is truncated; save it again")
        mapped = partial(tifffile.memmap, path, page=index, mode="r")
        return shape, 2, read_from(lambda: move_channels(mapped(), is_planar)), True
    return shape, 2, partial(read_segments, path, index, shape, is_planar), True


def read_from(array: Callable[[], Array]) -> Read:
    """Return a function that reads windows of the array that another function returns."""
    return lambda window: np.array(array()[window])


def move_channels(pixels: Array, is_planar: bool) -> Array:
    """Return pixels (C, H, W) as (H, W, C) if they are planar."""
    return np.moveaxis(pixels, 0, -1) if is_planar else pixels


def read_segments(path: Path, index: int, shape: tuple[int, ...], is_planar: bool, window: Window) -> Array:
    """Return a window of a page; only the strips or tiles that contain its pixels are decompressed."""
    y, x = (*window, slice(0, shape[1]))[:2]
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[index]
        length, width = page.tilelength or min(page.rowsperstrip, shape[0]), page.tilewidth or shape[1]
        rows, columns = -(-shape[0] // length), -(-shape[1] // width)
        numbers = [
            (channel * rows + row) * columns + column
            for channel in range(shape[2] if is_planar else 1)
            for row in range(y.start // length, -(-y.stop // length))
            for column in range(x.start // width, -(-x.stop // width))
        ]
        # A segment without data is empty.
        values = np.full((y.stop - y.start, x.stop - x.start, *shape[2:]), page.nodata, page.dtype)
        for number in numbers:
            tiff.filehandle.seek(page.dataoffsets[number])
            compressed = tiff.filehandle.read(page.databytecounts[number])
            pixels, position, _ = page.decode(compressed, number, jpegtables=page.jpegtables)
            if pixels is None:
                continue
            channel, _, top, left, *_ = position
            pixels = pixels[0, : shape[0] - top, : shape[1] - left]
            (to_y, from_y), (to_x, from_x) = overlap(y, top, len(pixels)), overlap(x, left, pixels.shape[1])
            target, pixels = values[to_y, to_x], pixels[from_y, from_x]
            if is_planar:
                target[..., channel] = pixels[..., 0]
            else:
                target[...] = pixels.reshape(target.shape)
        return values


def overlap(window: slice, start: int, length: int) -> tuple[slice, slice]:
    """Return the part of an axis that a window and a segment share, within the window and within the segment."""
    begin, end = max(window.start, start), min(window.stop, start + length)
    return slice(begin - window.start, end - window.start), slice(begin - start, end - start)


def open_stack(
    path: Path, series: Any, indices: Sequence[int], mode: str | None, pages: str | None, is_ome: bool
) -> tuple[tuple[int, ...], int, Read, bool]:
    """Return shape and number of spatial axes of several pages, which the series describes, and how to read them.

    Last, whether they are read in parts, as those that are stored without compression one after another are.
    """
    sizes, axes = series.shape, series.axes
    if pages is None:
        is_channel = [axis in "SC" for axis in axes]
    else:
        is_channel = [axis == "S" or (axis not in "YX" and pages == "channels") for axis in axes]
    spatial = [i for i, n in enumerate(sizes) if not is_channel[i] and (n > 1 or axes[i] in "YX")]
    channels = [i for i in range(len(sizes)) if is_channel[i]]
    if len(spatial) > 3:
        described = ", ".join(f"{axis}={n}" for axis, n in zip(axes, sizes, strict=True))
        raise UserError(
            f"{path}: pages with the axes {described}, expected the slices of one volume or the channels of one image; "
            f"divide it, or set data.source.pages=channels"
        )
    shape = tuple(sizes[i] for i in spatial) + ((math.prod(sizes[i] for i in channels),) if channels else ())

    order = [*spatial, *(i for i in range(len(sizes)) if i not in spatial and i not in channels), *channels]
    in_parts = mode is None and series.dataoffset is not None and len(channels) < 2  # else reshape copies all

    def read_pages() -> Array:
        if in_parts:
            pixels = tifffile.memmap(path, mode="r", is_ome=is_ome)
        elif mode is None:
            with tifffile.TiffFile(path, is_ome=is_ome) as tiff:
                pixels = tiff.series[0].asarray()
        else:
            pixels = np.stack([read_with_pillow(path, mode, index) for index in indices])
        return pixels.reshape(sizes).transpose(order).reshape(shape)

    return shape, len(spatial), read_from(read_pages if in_parts else cache(read_pages)), in_parts


def read_displayed(read: Read, white: int | None, window: Window) -> Array:
    """Return a window with the dark values small; ``white`` is the largest value of a file that stores white as 0."""
    values = read(window)
    values = values.view(np.uint8) if values.dtype == bool else values
    return values if white is None else values.dtype.type(white) - values


def color_map(page: Any) -> Array | None:
    """Return the colours (N, 3) uint8 of a palette image, None for any other."""
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colors = page.colormap.T
    return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8)  # libtiff accepts 8-bit values as well


def parse_nodata(text: object) -> float | None:
    """Return the number that GDAL's tag for the value without data begins with, such as ``-9999`` or ``nan``."""
    try:
        return float(str(text).replace("\0", " ").replace(",", ".").split()[0])
    except (ValueError, IndexError):
        return None
