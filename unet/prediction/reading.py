"""Read image files in bands of rows, so that images in formats that allow it need not fit into memory."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unet.errors import UserError
from unet.inference.tiling import Window
from unet.io.image_formats import (
    DISPLAY_MODES,
    PILLOW_SUFFIXES,
    SUFFIXES,
    Array,
    name_parts,
    read_array,
    read_with_pillow,
)
from unet.network.geometry import times

MAX_SEGMENT = 2**28
"""Bytes of a decompressed TIFF strip or tile above which the file is read at once."""
NATIVE_DTYPES = (np.uint8, np.uint16, np.float32)
"""Data types that are returned as stored; all others are converted to float32."""


@dataclass
class ImageReader:
    """An image file that is read in rows (the slices of a volume).

    Attributes:
        read: (begin, end) -> rows (end - begin, *S[1:], channels) of any data type.
        cache: index of the first of the last requested rows, and these rows; neighbouring tiles share rows.
    """

    path: Path
    size: tuple[int, ...]
    channels: int
    read: Callable[[int, int], Array]
    cache: tuple[int, Array] | None = field(default=None, repr=False)

    def window(self, window: Window) -> Array:
        """Return a window (*window, channels) as stored."""
        return self.rows(window[0].start, window[0].stop)[:, *window[1:]]

    def rows(self, begin: int, end: int) -> Array:
        """Return rows (end - begin, *S[1:], channels) as uint8, uint16 or float32."""
        first, rows = self.cache or (begin, None)
        if rows is None or not first <= begin < first + len(rows):
            rows = self.read_native(begin, end)
        elif end <= first + len(rows):
            return rows[begin - first : end - first]
        else:
            rows = np.concatenate([rows[begin - first :], self.read_native(first + len(rows), end)])
        self.cache = begin, rows
        return rows

    def read_native(self, begin: int, end: int) -> Array:
        """Read rows from the file, as one of :data:`NATIVE_DTYPES`."""
        try:
            rows = self.read(begin, end)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise exceptions of any type
            raise UserError(f"{self.path}: rows {begin} to {end} cannot be read ({error}); replace the file") from None
        if rows.dtype in NATIVE_DTYPES and rows.dtype.isnative:
            return rows
        try:
            with np.errstate(over="raise"):
                return rows.astype(np.float32)
        except FloatingPointError:
            raise UserError(f"{self.path}: values exceed the range of float32 (3.4e38); rescale them") from None


def open_image(path: Path, spatial_dims: int) -> ImageReader:
    """Open an image for a network with ``spatial_dims`` axes.

    .npy files and TIFF files of one page are read in bands (uncompressed, or in strips or tiles compressed with
    deflate, zstd, LZMA or PackBits; more with the package imagecodecs). All other formats are read at once, as by a
    data set.

    Raises:
        UserError: the file is missing, damaged, of an unsupported format, too large to be read at once, or has another
            number of axes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    suffix = name_parts(path)[1]
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unsupported format (supported: {', '.join(sorted(SUFFIXES))}); convert it")
    return BAND_READERS.get(suffix, read_at_once)(path, spatial_dims) or read_at_once(path, spatial_dims)


def read_at_once(path: Path, spatial_dims: int) -> ImageReader:
    """Read a whole image file into memory."""
    if name_parts(path)[1] not in PILLOW_SUFFIXES:
        return array_reader(path, read_array(path), spatial_dims, spatial_dims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            pixels, axes = read_with_pillow(path, lambda mode: DISPLAY_MODES.get(mode, mode))
        except UserError as error:
            if "decompression bomb" not in str(error):
                raise
            raise UserError(
                f"{path}: too large to be read at once; save it as TIFF (tiled or uncompressed) or .npy, "
                f"which are read in parts"
            ) from None
    return array_reader(path, pixels, axes, spatial_dims)


def array_reader(path: Path, pixels: Array, axes: int, spatial_dims: int) -> ImageReader:
    """Return a reader of an image in memory with ``axes`` spatial axes."""
    pixels = pixels[..., None] if pixels.ndim == axes else pixels
    check_shape(path, pixels.shape, axes, spatial_dims)
    return ImageReader(path, pixels.shape[:-1], pixels.shape[-1], lambda begin, end: pixels[begin:end])


def check_shape(path: Path, shape: Sequence[int], axes: int, spatial_dims: int) -> None:
    """Raise UserError unless ``shape`` has ``spatial_dims`` axes and channels, none of them empty."""
    if axes != spatial_dims or len(shape) != axes + 1 or any(n < 1 for n in shape):
        size = f"{times(shape[:axes])} with {shape[axes]} channels" if len(shape) == axes + 1 else times(shape)
        raise UserError(
            f"{path}: an image of {size}; the network takes images with {spatial_dims} axes, none of them empty, "
            f"followed by the channels"
        )


def read_mapped(path: Path, shape: Sequence[int], open_map: Callable[[], Array]) -> ImageReader:
    """Return a reader of an array that ``open_map`` maps into memory; every read opens and closes the map."""
    return ImageReader(path, tuple(shape[:-1]), shape[-1], lambda a, b: np.array(open_map().reshape(shape)[a:b]))


def open_npy(path: Path, spatial_dims: int) -> ImageReader | None:
    """Open an array file; return None if it cannot be mapped: :func:`read_at_once` then reports the reason."""

    open_map = partial(np.load, path, mmap_mode="r")
    try:
        array = open_map()
    except (OSError, ValueError, EOFError):
        return None
    if array.dtype.kind not in "buif" or not array.ndim:
        return None
    shape = array.shape if array.ndim == spatial_dims + 1 else (*array.shape, 1)
    check_shape(path, shape, len(shape) - 1, spatial_dims)
    return read_mapped(path, shape, open_map)


def open_tiff(path: Path, spatial_dims: int) -> ImageReader | None:
    """Open a TIFF; return None if it cannot be read in bands: :func:`read_at_once` then reads it or reports why not."""
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) != 1 or spatial_dims != 2:
                return None
            page = tiff.pages.first
            if page.dtype is None or page.dtype.kind not in "uif" or page.bitspersample % 8 or page.subfiletype:
                return None
            if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
                return None
            channels = page.samplesperpixel
            if page.imagedepth != 1 or (channels > 1 and page.planarconfig != tifffile.PLANARCONFIG.CONTIG):
                return None
            shape = (page.imagelength, page.imagewidth, channels)
            check_shape(path, shape, 2, spatial_dims)
            if page.is_memmappable:
                if page.dataoffsets[0] + math.prod(shape) * page.dtype.itemsize > path.stat().st_size:
                    raise UserError(f"{path}: the file is truncated; save it again")
                return read_mapped(path, shape, partial(tifffile.memmap, path, page=0, mode="r"))
            if math.prod(page.chunks) * page.dtype.itemsize > MAX_SEGMENT:
                return None
            read = read_segments(path, shape)
            read(0, 1)  # raises here if the compression is not supported
            return ImageReader(path, shape[:2], channels, read)
    except UserError:
        raise
    except Exception:
        return None  # not a TIFF, or a compression that tifffile does not support


def read_segments(path: Path, shape: tuple[int, ...]) -> Callable[[int, int], Array]:
    """Return a function that reads rows of a TIFF and decompresses only the strips or tiles that contain them."""

    def read(begin: int, end: int) -> Array:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            length, width = page.chunks[:2]
            columns = -(-shape[1] // width)
            rows = np.zeros((end - begin, *shape[1:]), page.dtype)
            for index in range(begin // length * columns, -(-end // length) * columns):
                tiff.filehandle.seek(page.dataoffsets[index])
                compressed = tiff.filehandle.read(page.databytecounts[index])
                pixels, position, _ = page.decode(compressed, index, jpegtables=page.jpegtables)
                if pixels is None:
                    continue  # a tile without data is empty
                top, left = position[2:4]
                pixels = pixels[0, : shape[0] - top, : shape[1] - left]
                first, last = max(begin, top), min(end, top + len(pixels))
                rows[first - begin : last - begin, left : left + pixels.shape[1]] = pixels[first - top : last - top]
            return rows

    return read


BAND_READERS = {".npy": open_npy, ".tif": open_tiff, ".tiff": open_tiff}
"""The functions that open a file for reading in bands, by suffix."""
