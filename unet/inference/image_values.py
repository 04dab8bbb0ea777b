"""Convert an image to the channels of the training images, where that is exact."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.network.geometry import times

HUGE, ROUNDED = 1e30, 2e-3
"""As in :mod:`unet.io.image_reader`, which this package does not need."""
LUMA, LUMA_SHIFT = (19595, 38470, 7471), 16
"""Pillow's weights of red, green and blue for its mode L (ITU-R 601-2), as fractions of 2**16."""


def as_tensor(image: Any) -> Tensor:
    """Convert an array of numbers, in any byte order, to a tensor."""
    if isinstance(image, Tensor):
        return image
    if getattr(getattr(image, "dtype", None), "kind", "") not in tuple("buif"):
        kind = getattr(image, "dtype", type(image).__name__)
        raise UserError(f"an image of type {kind}: expected an array of real numbers")
    copy = not image.flags.writeable  # torch warns about read-only arrays
    return torch.as_tensor(image.astype(image.dtype.newbyteorder("="), order="C", copy=copy))


def mark_missing(pixels: Tensor, nodata: float | None) -> Tensor:
    """Return pixels (*S, C) with NaN for the value that stands for no data, as floats if it occurs.

    The rule is that of :func:`unet.io.image_reader.find_missing`, for images in memory.
    """
    if nodata is None:
        return pixels
    value = torch.tensor(nodata, dtype=pixels.dtype if pixels.is_floating_point() else torch.float64)
    missing = pixels.double() == value.double()
    if pixels.is_floating_point() and HUGE < abs(nodata) < math.inf:
        missing |= (pixels.double() / nodata - 1).abs() < ROUNDED
    if pixels.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        missing = missing.all(-1, keepdim=True)
    return pixels.float().masked_fill(missing, torch.nan) if missing.any() else pixels


def trained_mode(description: Mapping[str, Any]) -> str | None:
    """Return the Pillow mode to which the training converted its images (``data.source.mode``), or None."""
    return description.get("reading", {}).get("mode")


def check_channels(shape: Sequence[int], description: Mapping[str, Any]) -> None:
    """Raise UserError for an image (*S, C) with a number of channels that :func:`convert_channels` does not convert."""
    channels, files = description["model"]["in_channels"], description.get("channel_names")
    colors = not files and (channels in (1, 3) or trained_mode(description) == "RGBA")
    accepted = (1, 2, 3, 4) if colors else (channels,)
    if shape[-1] in accepted:
        return
    if files:
        raise UserError(
            f"{shape[-1]} channels, but the network was trained on {channels}, each in a file ({', '.join(files)}); "
            f"stack them into one array, channels last"
        )
    if len(shape) > 2 and shape[0] in accepted:
        raise UserError(
            f"an image of {times(shape)} looks channels first; expected the channels last, colours as RGB: move the "
            f"first axis to the end, as numpy.moveaxis(image, 0, -1) does"
        )
    raise UserError(f"{shape[-1]} channels, but the network was trained on {channels}")


def splits_alpha(channels: int, description: Mapping[str, Any]) -> bool:
    """Return whether the last of the channels of an image is an alpha channel that the network does not use."""
    return channels in (2, 4) and description["model"]["in_channels"] in (1, 3)


def convert_channels(image: Tensor, description: Mapping[str, Any]) -> Tensor:
    """Convert an image (*S, C), or a window of one, to the channels of the training images, as the training did.

    Alpha is dropped, grey is repeated to RGB, and RGB becomes grey with Pillow's formula if the training converted its
    images to grey (``mode``), or if its three channels are equal. Black and white (bool) become 0 and 255, as in files.

    Raises:
        UserError: no exact conversion exists.
    """
    check_channels(image.shape, description)
    channels = description["model"]["in_channels"]
    if image.dtype == torch.bool:
        image = image.to(torch.uint8) * 255
    if splits_alpha(image.shape[-1], description):
        image = image[..., :-1]
    given = image.shape[-1]
    if given == channels:
        return image
    if channels == 1:
        return image_to_grey(image) if trained_mode(description) == "L" else equal_channel(image)
    color = image if given > 2 else image[..., [0, 0, 0]]
    if channels == 3:
        return color
    alpha = image[..., -1:] if given == 2 else torch.full_like(image[..., :1], 255)
    return torch.cat([color, alpha], -1)


def image_to_grey(image: Tensor) -> Tensor:
    """Convert an RGB image (*S, 3) to grey (*S, 1), equal to Pillow's ``convert("L")`` for 8-bit values."""
    red, green, blue = (image[..., channel].double() * weight for channel, weight in enumerate(LUMA))
    grey = ((red + green + blue + 2 ** (LUMA_SHIFT - 1)) / 2**LUMA_SHIFT).floor()
    return grey.to(torch.float32 if image.is_floating_point() else image.dtype)[..., None]


def equal_channel(image: Tensor) -> Tensor:
    """Return one channel (*S, 1) of an image (*S, 3) of three equal channels; raise UserError if they differ."""
    values = image if image.dtype != torch.uint16 else image.int()
    if not bool((values == values[..., :1]).all()):
        raise UserError("3 channels, but the network was trained on 1; convert it to grey as the training images were")
    return image[..., :1]
