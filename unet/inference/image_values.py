"""The values of an image to predict: type, channels, range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unet.errors import UserError

if TYPE_CHECKING:
    pass


class ValueRange:
    """The data type and the range of the values of an image that is read in windows."""

    def __init__(self) -> None:
        self.dtype, self.low, self.high = torch.float32, math.inf, -math.inf

    def add(self, pixels: Tensor) -> None:
        """Include a window. Raises UserError if it holds values that no network can take."""
        low, high = (value.item() for value in pixels.float().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError("the image holds NaN or infinite values; replace them")
        self.dtype, self.low, self.high = pixels.dtype, min(self.low, low), max(self.high, high)

    def mismatch(self, description: Mapping[str, Any]) -> str | None:
        """Return a warning if the values are unlikely to be in the units of the training images, else None.

        Dark images of the right type pass. A checkpoint that does not record its training's values gives no warning.
        """
        trained, (first, last) = description.get("dtype"), description.get("range") or (-math.inf, math.inf)
        if trained is None or not math.isfinite(last):
            return None
        unit = (self.dtype.is_floating_point or self.dtype == torch.bool) and self.low >= 0 and 0 < self.high <= 1
        if trained == "float32":
            wrong = (unit and last >= 255) or (last <= 1 and self.high >= 2)
        else:
            limit = torch.iinfo(getattr(torch, trained)).max
            narrow = self.dtype == torch.uint8 and last > 255
            wrong = (unit and last > 1) or self.low < 0 or self.high > limit or narrow
        if not wrong:
            return None
        return (
            f"the image holds {str(self.dtype).removeprefix('torch.')} values from {self.low:g} to {self.high:g}, but "
            f"the network was trained on {trained} images with values from {first:g} to {last:g}: the labels are "
            f"likely to be wrong; rescale the image to the units of the training images"
        )


def as_tensor(image: Any) -> Tensor:
    """Convert an array of numbers, in any byte order, to a tensor."""
    if isinstance(image, Tensor):
        return image
    if getattr(getattr(image, "dtype", None), "kind", "") not in tuple("buif"):
        raise UserError(f"an image of {getattr(image, 'dtype', type(image).__name__)}: expected an array of numbers")
    copy = not image.flags.writeable  # torch would warn
    return torch.as_tensor(image.astype(image.dtype.newbyteorder("="), order="C", copy=copy))


def match_channels(image: Any, channels: int) -> Any:
    """Convert (*S, C) to (*S, channels): alpha is dropped and grey repeated, all else raises UserError."""
    n = image.shape[-1]
    if channels in (1, 3) and n == channels + 1:
        return image[..., :channels]
    if channels == 3 and n in (1, 2):
        return image[..., [0, 0, 0]]
    if n != channels:
        advice = "; convert it to grey" if channels == 1 and n in (3, 4) else ""
        raise UserError(f"{n} channels, but the network was trained on {channels}{advice}")
    return image
