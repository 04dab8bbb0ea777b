"""Read PNG, JPEG, BMP, WebP and GIF images: with Pillow, OpenCV (16-bit colours) or, in parts, pyvips."""

import warnings
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from unet.errors import UserError
from unet.io.image_formats import Array, StoredImage, errors_of_reading
from unet.io.vips import open_with_vips

DISPLAY_MODES = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
"""Pillow modes whose values are not displayed as stored, and the mode to convert to; palettes are kept apart."""
CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
"""Number of channels of the Pillow modes that have several."""
BILEVEL = np.array([[0]] + [[255]] * 255, np.uint8)
"""The displayed value of each value of a bilevel image."""
DTYPES = {"I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
"""Data types of the Pillow modes that have other than 8 bits."""
LARGE = 2**25
"""Number of pixels from which prediction reads an image in parts."""
ORIENTATION = 0x0112
"""EXIF's tag for the orientation of the camera."""

# Pillow warns from half of the size on that it refuses; such an image is read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_picture(path: Path, in_parts: bool = False) -> StoredImage:
    """Open an image (H, W) or (H, W, C), uint8, or uint16 if it has 16 bits.

    The values of a palette image are its indices, those of a bilevel image 0 and 1; ``palette`` has their colours.

    Args:
        path: the file.
        in_parts: read a large PNG or JPEG with pyvips, if it is installed, so that it need not fit into memory. Not for
            processes that are forked later: libvips has threads.
    """
    try:
        # Pillow does not close every file.
        with errors_of_reading(path, "an image"), path.open("rb") as file, Image.open(file) as image:
            frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # an MPO has a preview as well
            if frames > 1:
                raise UserError(f"{path}: an animation of {frames} frames, expected one image; save one of the frames")
            mode = DISPLAY_MODES.get(image.mode, image.mode)
            raw = str(image.tile[0][3]) if image.tile else ""
            has_16_bits = mode in CHANNELS and raw.endswith(";16B")
            mode = raw.partition(";")[0] if has_16_bits else mode  # Pillow opens grey with alpha as RGBA
            shape = (image.height, image.width, *((CHANNELS[mode],) if mode in CHANNELS else ()))
            name, palette = f"{image.format} {image.mode}", index_colors(image)
            # getexif decodes a PNG to look behind its pixels.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ORIENTATION, 1) if has_exif else 1
            can_split = image.format in ("PNG", "JPEG") and image.mode in ("L", "I;16", *CHANNELS)
    except UserError as error:
        is_too_large = isinstance(error.__context__, Image.DecompressionBombError)
        if in_parts and is_too_large and (stored := open_with_vips(path)):
            return stored
        raise
    if in_parts and can_split and shape[0] * shape[1] >= LARGE and (stored := open_with_vips(path)):
        return stored
    pixels = cache(lambda: read_16_bit_colors(path, mode) if has_16_bits else read_with_pillow(path, mode))
    orientation = orientation if orientation in range(2, 9) else 1
    dtype = np.dtype(np.uint16 if has_16_bits else DTYPES.get(mode, np.uint8))
    return StoredImage(path, shape, 2, lambda window: pixels()[window], name, dtype, palette, orientation)


def index_colors(image: Image.Image) -> Array | None:
    """Return the displayed value of each index of a palette or bilevel image (256, C), None for any other image.

    A palette with transparent colours has four channels.
    """
    if image.mode == "1":
        return BILEVEL
    if image.mode not in ("P", "PA"):
        return None
    ramp = Image.frombytes("P", (256, 1), bytes(range(256)))
    ramp.putpalette(image.getpalette("RGB") or [0, 0, 0])
    ramp.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return np.asarray(ramp.convert("RGBA" if ramp.info else "RGB"))[0]


def read_with_pillow(path: Path, mode: str, page: int = 0) -> Array:
    """Return the pixels of an image in a Pillow mode; of a palette image or a bilevel one the indices."""
    with errors_of_reading(path, "an image"), path.open("rb") as file, Image.open(file) as image:
        image.seek(page)
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    pixels = pixels[..., 0] if mode == "PA" else pixels
    return pixels.astype(np.uint8) if mode == "1" else pixels


def read_16_bit_colors(path: Path, mode: str) -> Array:
    """Return a PNG of 16 bits and several channels, of which Pillow reads 8 bits only, as uint16."""
    with errors_of_reading(path, "an image"):
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("it is damaged")
        order = {"LA": [0, 3], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}[mode]  # OpenCV returns BGR and BGRA
        return pixels[..., order]
