"""Image files as bands of rows, so that no image need fit into memory whose format can be read in parts."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unet.data.formats import PICTURES, SHOWN_AS, SUFFIXES, name_parts, read_numbers, read_picture
from unet.data.source import Array
from unet.errors import UserError
from unet.geometry import times
from unet.inference import Window

SEGMENT = 2**28
"""Bytes of a TIFF's strip or tile, unpacked, beyond which it is no part any more."""
KEPT = (np.uint8, np.uint16, np.float32)
"""Types of stored numbers the network is given as they are; all others become float32."""


@dataclass
class Stored:
    """An image file: its size along each axis, its channels, and its rows, those of a volume being slices.

    Attributes:
        read: (begin, end) -> rows (end - begin, *S[1:], channels), in any type.
        kept: the rows last asked for and where they begin: tiles side by side, and rows of tiles, share them.
    """

    path: Path
    size: tuple[int, ...]
    channels: int
    read: Callable[[int, int], Array]
    kept: tuple[int, Array] | None = field(default=None, repr=False)

    def rows(self, begin: int, end: int) -> Array:
        """(end - begin, *S[1:], channels) uint8, uint16 or float32."""
        first, held = self.kept or (begin, None)
        if held is not None and first <= begin and end <= first + len(held):
            return held[begin - first : end - first]
        if held is not None and first <= begin < first + len(held):
            fresh = self.converted(first + len(held), end)
            held = np.concatenate([held[begin - first :], fresh])
        else:
            held = self.converted(begin, end)
        self.kept = begin, held
        return held

    def converted(self, begin: int, end: int) -> Array:
        try:
            rows = self.read(begin, end)
        except MemoryError:
            raise
        except Exception as error:  # a decoder may fail in any way
            raise UserError(f"{self.path}: rows {begin} to {end} cannot be read ({error}); replace the file") from None
        if rows.dtype in KEPT and rows.dtype.isnative:
            return rows
        try:
            with np.errstate(over="raise"):
                return rows.astype(np.float32)
        except FloatingPointError:
            raise UserError(f"{self.path}: values beyond those of float32 (3.4e38); rescale them") from None

    def window(self, window: Window) -> Array:
        """Return a window (*window, channels) as stored."""
        return self.rows(window[0].start, window[0].stop)[:, *window[1:]]


def open_image(path: Path, spatial_dims: int) -> Stored:
    """An image for a network of that many axes; nothing of it is kept in memory where its format has parts.

    Parts have: .npy, and TIFF of one page (strips or tiles, uncompressed or compressed by deflate, zstd, LZMA or
    PackBits; more with the package imagecodecs). All other formats are read as a data set reads them, at once.

    Raises:
        UserError: a file that is missing, of no format that is read, damaged, too large to be read at once, or of
            other axes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    suffix = name_parts(path)[1]
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: no format that is read ({', '.join(sorted(SUFFIXES))}); convert it")
    found = OPENED[suffix](path, spatial_dims) if suffix in OPENED else None
    return found or at_once(path, spatial_dims)


def at_once(path: Path, spatial_dims: int) -> Stored:
    if name_parts(path)[1] in PICTURES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                pixels, axes = read_picture(path, lambda mode: SHOWN_AS.get(mode, mode))
            except UserError as error:
                if "decompression bomb" in str(error):
                    raise UserError(
                        f"{path}: too large to be read at once; save it as TIFF (tiled, or uncompressed) or .npy, "
                        f"which are read in parts"
                    ) from None
                raise
    else:
        pixels, axes = read_numbers(path), spatial_dims
    return of_array(path, pixels, axes, spatial_dims)


def of_array(path: Path, pixels: Array, axes: int, spatial_dims: int) -> Stored:
    pixels = pixels[..., None] if pixels.ndim == axes else pixels
    fits(path, pixels.shape, axes, spatial_dims)
    return Stored(path, pixels.shape[:-1], pixels.shape[-1], lambda begin, end: pixels[begin:end])


def fits(path: Path, shape: Sequence[int], axes: int, spatial_dims: int) -> None:
    """Raise UserError unless ``shape`` is ``spatial_dims`` axes and channels, none of them empty."""
    if axes != spatial_dims or len(shape) != axes + 1 or any(n < 1 for n in shape):
        found = f"{times(shape[:axes])} with {shape[axes]} channels" if len(shape) == axes + 1 else times(shape)
        raise UserError(
            f"{path}: an image of {found}; the network takes images of {spatial_dims} axes and channels, last, none of "
            f"them empty"
        )


def open_npy(path: Path, spatial_dims: int) -> Stored | None:
    """None where the array is laid out by columns, is none of numbers, or is damaged: the other reader says so."""
    try:
        with path.open("rb") as file:
            header = HEADERS[np.lib.format.read_magic(file)]
            shape, by_columns, dtype = header(file)
            begins = file.tell()
    except (ValueError, KeyError):
        return None
    if dtype.kind not in "buif" or not shape or (by_columns and len(shape) > 1):
        return None
    axes = len(shape) - (len(shape) == spatial_dims + 1)
    shape = (*shape, 1)[: axes + 1]
    fits(path, shape, axes, spatial_dims)
    return Stored(path, shape[:axes], shape[axes], from_file(path, begins, dtype, shape))


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def from_file(path: Path, begins: int, dtype: np.dtype, shape: Sequence[int]) -> Callable[[int, int], Array]:
    """Rows that lie one after another in a file. They are read, not mapped: pages of a map count as memory."""
    if begins + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise UserError(f"{path}: cut short; save it anew")
    row = math.prod(shape[1:])

    def read(begin: int, end: int) -> Array:
        found = np.fromfile(path, dtype, (end - begin) * row, offset=begins + begin * row * dtype.itemsize)
        return found.reshape(end - begin, *shape[1:])

    return read


def open_tiff(path: Path, spatial_dims: int) -> Stored | None:
    """None where tifffile cannot read it in parts as what it shows; Pillow may still read it at once."""
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
            fits(path, shape, 2, spatial_dims)
            if page.is_memmappable:
                dtype = page.dtype.newbyteorder(tiff.byteorder)
                return Stored(path, shape[:2], channels, from_file(path, page.dataoffsets[0], dtype, shape))
            if math.prod(page.chunks) * page.dtype.itemsize > SEGMENT:
                return None
            read = segments(path, shape)
            read(0, 1)  # says now what cannot be unpacked
            return Stored(path, shape[:2], channels, read)
    except UserError:
        raise
    except Exception:
        return None  # no TIFF, or of a kind tifffile cannot unpack: the other reader says what is wrong with it


def segments(path: Path, shape: tuple[int, ...]) -> Callable[[int, int], Array]:
    """Rows of a TIFF of strips or tiles, of which only those that hold the rows are unpacked."""

    def read(begin: int, end: int) -> Array:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            length, width = page.chunks[:2]
            across = -(-shape[1] // width)
            found = np.zeros((end - begin, *shape[1:]), page.dtype)
            for number in range(begin // length * across, -(-end // length) * across):
                tiff.filehandle.seek(page.dataoffsets[number])
                packed = tiff.filehandle.read(page.databytecounts[number])
                pixels, place, _ = page.decode(packed, number, jpegtables=page.jpegtables)
                if pixels is None:
                    continue  # a tile that was never written is empty
                top, left = place[2:4]
                pixels = pixels[0, : shape[0] - top, : shape[1] - left]
                first, last = max(begin, top), min(end, top + len(pixels))
                found[first - begin : last - begin, left : left + pixels.shape[1]] = pixels[first - top : last - top]
            return found

    return read


OPENED: dict[str, Callable[[Path, int], Stored | None]] = {".npy": open_npy, ".tif": open_tiff, ".tiff": open_tiff}
"""How a file of that suffix is read in parts."""
