"""Conversions and checks of the values of an image: data type, channels, range."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.labels import IGNORE_INDEX


class ValueRange:
    """The data type and the range of the values of an image, collected window by window."""

    def __init__(self) -> None:
        self.dtype, self.low, self.high = torch.float32, math.inf, -math.inf

    def add(self, pixels: Tensor) -> None:
        """Add the pixels of a window, without NaN; raise UserError if any is infinite."""
        values = pixels.float()
        values = values[~values.isnan()] if pixels.is_floating_point() else values
        if not values.numel():
            return
        low, high = (value.item() for value in values.aminmax())
        if math.isinf(low) or math.isinf(high):
            raise UserError("the image holds infinite values; replace them")
        self.dtype, self.low, self.high = pixels.dtype, min(self.low, low), max(self.high, high)

    def mismatch(self, description: Mapping[str, Any]) -> str | None:
        """Return a warning if the values are unlikely to be in the units of the training images, else None.

        Dark images of the right type pass, and so do all images if the checkpoint lacks ``dtype`` and ``range``.
        """
        if self.low > self.high:
            return f"no pixel of the image holds data: every label is {IGNORE_INDEX}"
        trained, (minimum, maximum) = description.get("dtype"), description.get("range") or (-math.inf, math.inf)
        if trained is None or not math.isfinite(maximum):
            return None
        unit = (self.dtype.is_floating_point or self.dtype == torch.bool) and self.low >= 0 and 0 < self.high <= 1
        if trained == "float32":
            differs = (unit and maximum >= 255) or (maximum <= 1 and self.high >= 2)
        else:
            limit = torch.iinfo(getattr(torch, trained)).max
            narrower = self.dtype == torch.uint8 and maximum > 255
            differs = (unit and maximum > 1) or self.low < 0 or self.high > limit or narrower
        if not differs:
            return None
        return (
            f"the image holds {str(self.dtype).removeprefix('torch.')} values from {self.low:g} to {self.high:g}, but "
            f"the network was trained on {trained} images with values from {minimum:g} to {maximum:g}: the labels are "
            f"likely to be wrong; rescale the image to the units of the training images"
        )


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
    if pixels.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        missing = missing.all(-1, keepdim=True)
    return pixels.float().masked_fill(missing, torch.nan) if missing.any() else pixels


def match_channels(image: Any, channels: int) -> Any:
    """Convert (*S, C) to (*S, channels): drop alpha or repeat grey; raise UserError for any other difference."""
    n = image.shape[-1]
    if channels in (1, 3) and n == channels + 1:
        return image[..., :channels]
    if channels == 3 and n in (1, 2):
        return image[..., [0, 0, 0]]
    if n != channels:
        advice = "; convert it to grey" if channels == 1 and n in (3, 4) else ""
        raise UserError(f"{n} channels, but the network was trained on {channels}{advice}")
    return image
