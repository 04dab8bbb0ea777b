"""Read mask files as they store their values."""

from pathlib import Path

import numpy as np

from unet.data.annotations import read_labelme
from unet.data.mask_file import MaskFile, pack_rgb
from unet.data.source import Array
from unet.errors import UserError
from unet.io.image_formats import NIFTI, SUFFIXES, StoredImage, name_parts
from unet.io.image_reader import open_stored
from unet.network.geometry import Window, times

MASK_SUFFIXES = SUFFIXES | {".json"}
MAX_CHANNELS = 8  # up to this length, the last axis of an array that is much longer along the others is channels
MAX_ONE_HOT = 32
MAX_ROUNDING = 1e-4
"""Largest difference of a label from an integer that is due to rounding, as in a NIfTI file with a scale factor."""


def read_mask(path: Path, colors: bool = False, image: Path | None = None, window: Window = ()) -> MaskFile:
    """Read a mask file, or a window of it, on the voxel grid of its ``image`` if both are NIfTI files.

    A palette image has its indices as values, or its colours with ``colors``; GIF always has its colours, because
    programs order its palette as they like. All axes of an array are spatial, except an axis of size 1 (the last, or
    the first of three) and, with ``colors``, a last axis of size 3 or 4.

    Raises:
        UserError: it cannot be read; it has other than one to three axes; its shape is in the alpha channel; its voxels
            are not those of the image.
    """
    suffix = name_parts(path)[1]
    if suffix == ".json":
        return read_labelme(path).draw()
    stored = open_mask(path, image)
    pixels, spatial_dims, palette = round_labels(stored.pixels(window)), stored.spatial_dims, None
    if stored.palette is not None and stored.palette.shape[1] >= 3:
        if colors or suffix == ".gif":
            pixels = stored.palette[pixels]
        else:
            present = np.flatnonzero(np.bincount(pixels.ravel()))
            palette = {int(index): tuple(stored.palette[index, :3].tolist()) for index in present}
    if spatial_dims is None:
        pixels, spatial_dims = drop_channel_axis(pixels, path, colors)
    elif pixels.ndim > spatial_dims and pixels.shape[-1] in (2, 4):
        check_alpha(pixels, path)
    if not 1 <= spatial_dims <= 3 or pixels.size == 0:
        raise UserError(f"{path}: a mask of {times(pixels.shape)}, expected one to three axes and no channels")
    return MaskFile(pixels, spatial_dims, palette)


def open_mask(path: Path, image: Path | None = None) -> StoredImage:
    """Open a mask file other than JSON, on the voxel grid of its ``image`` if both are NIfTI files."""
    is_nifti = image is not None and all(name_parts(file)[1] in NIFTI for file in (path, image))
    return open_stored(path, grid=image if is_nifti else None)


def round_labels(pixels: Array) -> Array:
    """Return values that are integers up to the rounding of a scaled file as integers, others unchanged."""
    if pixels.dtype.kind != "f":
        return pixels
    rounded = np.rint(pixels)
    return rounded if np.allclose(pixels, rounded, rtol=0, atol=MAX_ROUNDING, equal_nan=True) else pixels


def drop_channel_axis(pixels: Array, path: Path, colors: bool) -> tuple[Array, int]:
    """Return the values of an array file and the number of spatial axes. Raises UserError if it has channels."""
    if pixels.ndim > 1 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    elif pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if colors and pixels.ndim > 1 and pixels.shape[-1] in (3, 4):
        return pixels, pixels.ndim - 1
    if path.suffix.lower() == ".npy" and pixels.ndim == 3:
        refuse_channels(pixels, path)
    return pixels, pixels.ndim


def refuse_channels(pixels: Array, path: Path) -> None:
    """Raise UserError if a mask of three axes is no volume but has one channel a class, or colours."""
    for axis in (-1, 0):
        if is_one_hot(pixels, axis):
            raise UserError(
                f"{path}: a one-hot mask of {times(pixels.shape)}, expected one label per pixel; convert it with "
                f"numpy.save(path, mask.argmax({axis}).astype('uint8'))"
            )
    if pixels.shape[-1] <= MAX_CHANNELS and MAX_CHANNELS * pixels.shape[-1] <= min(pixels.shape[:-1]):
        raise UserError(
            f"{path}: a mask of {times(pixels.shape)}, expected one label per pixel; if the last axis is colours, map "
            f"them with data.source.values; if it is one channel a class, make them one label; if it is the slices of "
            f"a volume, move it to the front"
        )


def is_one_hot(pixels: Array, axis: int) -> bool:
    """Return whether an array has one channel a class along an axis: one pixel value, in one channel each."""
    if not 2 <= pixels.shape[axis] <= MAX_ONE_HOT or len(np.unique(pixels.take(0, axis))) > 2:
        return False
    return bool(((pixels != 0).sum(axis) == 1).all() and len(np.unique(pixels)) == 2)


def check_alpha(pixels: Array, path: Path) -> None:
    """Raise UserError if the colours of a mask (*S, C) with alpha last do not hold its shape.

    They do where alpha is constant, or where no colour occurs both transparent and visible. A mask that is black and
    transparent everywhere is empty.
    """
    alpha = pixels[..., -1]
    if alpha.min() == alpha.max() > 0 or not pixels.any():
        return
    colors = pixels[..., 0] if pixels.shape[-1] == 2 else pack_rgb(pixels)
    transparent, shown = np.unique(colors[alpha == 0]), np.unique(colors[alpha > 0])
    if len(np.union1d(transparent, shown)) == 1:
        raise UserError(
            f"{path}: a mask of one colour, whose shape is in the alpha channel; save that channel as the mask, with "
            f"Pillow: Image.open(PATH).getchannel('A').save(NEW_PATH)"
        )
    if np.intersect1d(transparent, shown).size:
        raise UserError(
            f"{path}: a mask with a colour both transparent and visible, so its colours are no labels; draw it without "
            f"transparency"
        )
