"""Read mask files as they store their values."""

from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.annotations import read_labelme
from unet.data.mask_file import MaskFile, pack_rgb
from unet.data.source import Array, Color
from unet.errors import UserError
from unet.io.image_formats import DISPLAY_MODES, PILLOW_SUFFIXES, SUFFIXES, name_parts, read_array, read_with_pillow
from unet.network.geometry import times

MASK_SUFFIXES = SUFFIXES | {".gif", ".json"}
MAX_CHANNELS = 8  # up to this length, the last axis of an array that is much longer along the others is channels
MAX_ONE_HOT = 32


def read_mask(path: Path, colors: bool = False) -> MaskFile:
    """Read a mask file.

    A palette image has its indices as values, or its colours with ``colors``; GIF always has its colours, because
    programs order its palette as they like. All axes of an array are spatial, except an axis of size 1 (the last, or
    the first of three) and, with ``colors``, a last axis of size 3 or 4.

    Raises:
        UserError: it cannot be read; it has other than one to three axes; its shape is in the alpha channel.
    """
    suffix = name_parts(path)[1]
    if suffix == ".json":
        return read_labelme(path).draw()
    palette = None
    if suffix in PILLOW_SUFFIXES or suffix == ".gif":
        as_colors = colors or suffix == ".gif"
        modes = DISPLAY_MODES | ({"P": "RGBA", "PA": "RGBA"} if as_colors else {"1": "1", "P": "P", "PA": "PA"})
        pixels, spatial_dims = read_with_pillow(path, lambda mode: modes.get(mode, mode))
        if not as_colors and (colors_of := read_palette(path)):
            pixels = pixels[..., 0] if pixels.ndim > spatial_dims else pixels
            palette = {index: colors_of[index] for index in np.flatnonzero(np.bincount(pixels.ravel())).tolist()}
        if palette is None and pixels.ndim > spatial_dims and pixels.shape[-1] in (2, 4):
            check_alpha(pixels, path)
    else:
        pixels, spatial_dims = read_array_mask(path, colors)
    if not 1 <= spatial_dims <= 3 or pixels.size == 0:
        raise UserError(f"{path}: a mask of {times(pixels.shape)}, expected one to three axes and no channels")
    return MaskFile(pixels, spatial_dims, palette)


def read_array_mask(path: Path, colors: bool) -> tuple[Array, int]:
    """Return the values of an array file and the number of spatial axes. Raises UserError if it has channels."""
    pixels = read_array(path)
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


def read_palette(path: Path) -> list[Color] | None:
    """Return the 256 colours of an image with a palette, black where it has fewer; None without a palette."""
    with Image.open(path) as image:
        values = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    if values is None:
        return None
    values += [0] * (3 * 256 - len(values))
    return list(zip(values[::3], values[1::3], values[2::3], strict=True))


def check_alpha(pixels: Array, path: Path) -> None:
    """Raise UserError if the colours of a mask (*S, C) with alpha last do not hold its shape.

    They do where alpha is constant, or where no colour occurs both transparent and visible.
    """
    alpha = pixels[..., -1]
    if alpha.min() == alpha.max() > 0:
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
