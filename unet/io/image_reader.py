"""Read image files in parts: channels last, palettes as colours, NaN where there is no data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet.errors import UserError
from unet.io.arrays import open_nifti, open_npy
from unet.io.image_formats import (
    NIFTI,
    PICTURES,
    SUFFIXES,
    TIFF,
    Array,
    StoredImage,
    errors_of_reading,
    name_parts,
)
from unet.io.pictures import open_picture
from unet.io.tiff import open_tiff
from unet.network.geometry import Window, times

NATIVE_DTYPES = (np.uint8, np.uint16, np.float32)
"""Data types that are returned as stored; bool becomes uint8, 0 and 255, and all others are converted to float32."""
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files of both byte orders."""
HUGE, ROUNDED = 1e30, 2e-3
"""Programs round a value for no data such as the smallest of float32 to ``-3.4e+38``: above which it is compared with
this relative difference."""
PILLOW_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an 8-bit image, by its number of channels."""


@dataclass(frozen=True)
class ReadOptions:
    """How the image files of a data set are read.

    Attributes:
        mode: the Pillow mode to which 8-bit images are converted, ``L``, ``RGB`` or ``RGBA``; None: no conversion.
        nodata: a value that stands for no data, besides NaN and the value that a GeoTIFF declares.
        declared_nodata: whether the value that a GeoTIFF declares counts.
        pages: what the pages of a TIFF are, ``channels`` or ``slices``; None: as its metadata say, or else slices.
    """

    mode: str | None = None
    nodata: float | None = None
    declared_nodata: bool = True
    pages: str | None = None

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "ReadOptions":
        """Return how the training images of a checkpoint were read; see ``checkpoint_metadata``."""
        return cls(**description.get("reading", {}))


AS_STORED = ReadOptions()


@dataclass
class ImageReader:
    """An image that is read in windows, or in rows (the slices of a volume).

    Attributes:
        stored: the content of its file, (*S, C) with the channels last.
        options: how it is read.
        cache: index of the first of the last requested rows, and these rows; neighbouring tiles share rows.
    """

    stored: StoredImage
    options: ReadOptions = AS_STORED
    cache: tuple[int, Array] | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        return self.stored.path

    @property
    def size(self) -> tuple[int, ...]:
        return self.stored.shape[:-1]

    @property
    def channels(self) -> int:
        """Return the number of channels of the rows."""
        if self.options.mode is not None:
            return len(self.options.mode)
        return self.stored.shape[-1] if self.stored.palette is None else min(3, self.stored.palette.shape[1])

    @property
    def dtype(self) -> np.dtype:
        """Return the data type of the rows, unless pixels without data make it float32."""
        return to_native(np.empty(0, self.stored.dtype), self.path).dtype

    def window(self, window: Window) -> Array:
        """Return a window (*window, C) from the cache of rows."""
        return self.rows(window[0].start, window[0].stop)[:, *window[1:]]

    def rows(self, begin: int, end: int) -> Array:
        """Return rows (end - begin, *S[1:], C) as uint8, uint16 or float32, NaN where there is no data."""
        first, rows = self.cache or (begin, None)
        if rows is None or not first <= begin < first + len(rows):
            rows = self.pixels((slice(begin, end),))
        elif end <= first + len(rows):
            return rows[begin - first : end - first]
        else:
            rows = np.concatenate([rows[begin - first :], self.pixels((slice(first + len(rows), end),))])
        self.cache = begin, rows
        return rows

    def pixels(self, window: Window = ()) -> Array:
        """Read a window (*window, C) from the file and keep nothing of it; by default the whole image (*S, C)."""
        window = window or (slice(0, self.size[0]),)
        with errors_of_reading(self.path, "an image"):
            values = self.stored.read(window)
        masks = self.declared_missing(values, window)  # of a palette, GDAL declares an index
        if self.stored.palette is not None:
            values = self.stored.palette[values[..., 0], :3]
        masks.append(find_missing(values, self.options.nodata))
        missing = reduce(np.logical_or, masks)
        if missing.any():
            values = np.where(missing, values.dtype.type(0), values)  # float32 may not hold the value
        values = to_native(values, self.path)
        if self.options.mode is not None:
            values = convert_mode(values, self.options.mode, self.path)
        if missing.any():
            missing = missing.all(-1, keepdims=True) if self.options.mode is not None else missing
            values = np.where(missing, np.float32(np.nan), values.astype(np.float32))
        return values

    def declared_missing(self, values: Array, window: Window) -> list[Array]:
        """Return where the file says that a window has no data, by its value and by its mask."""
        if not self.options.declared_nodata:
            return []
        masks = [find_missing(values, self.stored.nodata)]
        if self.stored.valid is not None:
            masks.append(~self.stored.valid(window)[..., None].astype(bool))
        return masks


def open_stored(path: Path, pages: str | None = None, grid: Path | None = None, in_parts: bool = False) -> StoredImage:
    """Open an image or mask file of any supported format; see :func:`open_tiff`, :func:`open_nifti`, ...

    Raises:
        UserError: the file is missing, damaged, or of an unsupported format.
    """
    suffix = name_parts(path)[1]
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unsupported format (supported: {', '.join(sorted(SUFFIXES))}); convert it")
    if suffix in NIFTI:
        return open_nifti(path, grid)
    if suffix not in TIFF | PICTURES:
        return open_npy(path)
    with errors_of_reading(path, "an image"), path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_SIGNATURES  # the suffix may be wrong
    return open_tiff(path, pages) if is_tiff else open_picture(path, in_parts)


def open_image(
    path: Path,
    spatial_dims: int,
    options: ReadOptions = AS_STORED,
    size: Sequence[int] | None = None,
    channels: int | None = None,
    in_parts: bool = False,
) -> ImageReader:
    """Open an image file with ``spatial_dims`` axes and channels, which are last unless ``size`` says otherwise.

    Args:
        path: the file.
        spatial_dims: axes of its mask, or of the images of a network.
        options: how it is read.
        size: the size of its mask; None: unknown.
        channels: the channels that a network takes; None: unknown. An array is read with its channels first if only
            then it has that size, or that number of channels.
        in_parts: see :func:`open_picture`.

    Raises:
        UserError: the file is missing, damaged, of an unsupported format, or has another number of axes.
    """
    stored = open_stored(path, options.pages, in_parts=in_parts)
    shape, extra = stored.shape, len(stored.shape) - spatial_dims
    if options.pages is None and extra == 1 and len(shape) == 3 and is_row_of_pixels_per_page(stored, size, channels):
        stored = replace(stored, spatial_dims=spatial_dims)
    if stored.spatial_dims not in (None, spatial_dims) or extra not in (0, 1) or 0 in shape:
        pages = {2: "channels", 3: "slices"}.get(spatial_dims)
        is_stack = size is not None and stored.format.startswith("TIFF") and pages is not None and len(shape) >= 3
        owner = "its mask has" if size is not None else "the network takes images with"
        raise UserError(
            f"{path}: an image of {times(shape)}, but {owner} {spatial_dims} axes; expected as many, none of them "
            f"empty, and optionally one more for channels, last"
            + (f"; if its pages are {pages}, set data.source.pages={pages}" if is_stack else "")
        )
    read = stored.read
    if extra and stored.spatial_dims is None and is_channels_first(shape, size, channels):
        planes = (slice(0, shape[0]),)
        stored = replace(
            stored, shape=(*shape[1:], shape[0]), read=lambda window: np.moveaxis(read(planes + window), 0, -1)
        )
    elif not extra:
        stored = replace(stored, shape=(*shape, 1), read=lambda window: read(window)[..., None])
    return ImageReader(stored, options)


def array_reader(path: Path, pixels: Array) -> ImageReader:
    """Return a reader of an image in memory (*S, C), which came from a file."""
    dims = pixels.ndim - 1
    stored = StoredImage(path, pixels.shape, dims, lambda window: pixels[window], "in memory", pixels.dtype)
    return ImageReader(stored)


def is_channels_first(shape: Sequence[int], size: Sequence[int] | None, channels: int | None) -> bool:
    """Return whether an array (C, *S) or (*S, C) has its channels first."""
    if size is not None:
        return tuple(shape[1:]) == tuple(size) != tuple(shape[:-1])
    return shape[0] == channels != shape[-1]


def is_row_of_pixels_per_page(stored: StoredImage, size: Sequence[int] | None, channels: int | None) -> bool:
    """Return whether the pages (W, C) of a TIFF are the rows of an image, as ``tifffile.imwrite`` writes (H, W, C)."""
    if not stored.format.startswith("TIFF") or stored.spatial_dims != 3:
        return False
    shape = stored.shape
    if size is not None:
        return shape[:-1] == tuple(size) != shape[1:]
    return shape[-1] == channels != shape[0] and shape[-1] > 1


def find_missing(values: Array, nodata: float | None) -> Array:
    """Return where values (..., C) are the value for no data, bool of a shape that is broadcast to theirs.

    Of an unsigned type a pixel is missing where all its channels have the value: 0 in one channel alone is a colour.
    """
    if nodata is None or math.isnan(nodata):
        return np.zeros(1, bool)
    if values.dtype.kind in "ui" and not (nodata.is_integer() and is_in_range(nodata, values.dtype)):
        return np.zeros(1, bool)
    with np.errstate(over="ignore"):
        missing = values == np.array(nodata).astype(values.dtype)
        if HUGE < abs(nodata) < math.inf and values.dtype.kind == "f":
            missing |= np.abs(values / nodata - 1) < ROUNDED
    if values.dtype.kind == "u":
        missing = missing.all(-1, keepdims=True)
    return missing


def is_in_range(number: float, dtype: np.dtype) -> bool:
    info = np.iinfo(dtype)
    return info.min <= number <= info.max


def to_native(values: Array, path: Path) -> Array:
    """Return values as one of :data:`NATIVE_DTYPES`, in the byte order of the machine."""
    if values.dtype == bool:  # black and white, as in a bilevel PNG
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype in NATIVE_DTYPES and values.dtype.isnative:
        return values
    if values.dtype.newbyteorder("=") in NATIVE_DTYPES:
        return values.astype(values.dtype.newbyteorder("="))
    try:
        with np.errstate(over="raise"):
            return values.astype(np.float32)  # OpenCV, which augments, does not support int32
    except FloatingPointError:
        raise UserError(f"{path}: values beyond those of float32 (3.4e38); rescale them") from None


def convert_mode(values: Array, mode: str, path: Path | str) -> Array:
    """Convert an 8-bit image (*S, C) to a Pillow mode, (*S, len(mode)). Raises UserError for any other image."""
    channels = values.shape[-1]
    if values.dtype != np.uint8 or channels not in PILLOW_MODES:
        raise UserError(
            f"{path}: {channels} channels of {values.dtype}, which data.source.mode={mode} does not convert (it is for "
            f"1 to 4 channels of 8 bits); leave the mode out, or convert the file"
        )
    if PILLOW_MODES[channels] == mode:
        return values
    rows = values.reshape(-1, *values.shape[-2:])
    image = Image.fromarray(rows[..., 0] if channels == 1 else rows)
    return np.asarray(image.convert(mode)).reshape(*values.shape[:-1], len(mode))
