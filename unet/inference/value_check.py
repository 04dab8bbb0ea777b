"""Compare the values of an image with those of the training images, and say where a prediction is doubtful."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.inference.image_values import as_tensor, convert_channels, splits_alpha, trained_mode
from unet.labels import IGNORE_INDEX
from unet.network.geometry import size_range

MAX_SPACING_RATIO = 1.5
"""Ratio of a voxel's size to that of the training images above which a prediction is doubtful."""
DARKEST, BRIGHTEST = 1 / 100, 10
"""Fractions of the training's largest value between which the largest value of an image should be."""
DARKER = 1 / 4
"""Fraction of the smallest of the largest values of the training images above which that of an image should be."""


class ValueStatistics:
    """Data type, and smallest, largest and mean value of each channel, collected window by window.

    Windows that overlap are counted several times in the mean.
    """

    def __init__(self) -> None:
        self.dtype, self.count = torch.float32, torch.tensor(0)
        self.low, self.high, self.total = torch.tensor(math.inf), torch.tensor(-math.inf), torch.tensor(0.0)

    def add(self, pixels: Tensor) -> None:
        """Add the pixels (*S, C) of a window, without NaN; raise UserError if any is infinite."""
        self.dtype = pixels.dtype
        pixels = pixels.reshape(-1, pixels.shape[-1])
        if pixels.dtype in (torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16):
            pixels = pixels.float()  # torch computes no minimum of these
        if pixels.is_floating_point() and (missing := pixels.isnan()).any():
            low = pixels.masked_fill(missing, math.inf).amin(0).double().cpu()
            high = pixels.masked_fill(missing, -math.inf).amax(0).double().cpu()
            count = (~missing).sum(0).cpu()
            total = pixels.nansum(0, dtype=torch.double).cpu()
        else:
            low, high = (value.double().cpu() for value in pixels.aminmax(dim=0))
            count = torch.full(low.shape, len(pixels))
            total = pixels.float().mean(0).double().cpu() * len(pixels)
        present = count > 0
        if not (low.float().isfinite() & high.float().isfinite())[present].all():  # the network computes in float32
            raise UserError("the image holds infinite values; replace them")
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.total, self.count = self.total + total, self.count + count

    @property
    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest value."""
        return self.low.min().item(), self.high.max().item()


class InputConverter:
    """Converts the windows of one image to the channels of the training images, and checks their values."""

    def __init__(self, description: Mapping[str, Any]):
        self.description = description
        self.values, self.alpha = ValueStatistics(), ValueStatistics()

    def convert(self, pixels: Any) -> Tensor:
        """Return a window (*window, C) with the channels of the training images. Raises UserError."""
        image = as_tensor(pixels)
        converted = convert_channels(image, self.description)
        if splits_alpha(image.shape[-1], self.description):
            self.alpha.add(image[..., -1:])
        self.values.add(converted)
        return converted

    def doubts(self) -> list[str]:
        """Return a message for each reason why the labels may be wrong, once all windows are converted."""
        return [*alpha_doubts(self.alpha, self.description), *value_doubts(self.values, self.description)]


def alpha_doubts(alpha: ValueStatistics, description: Mapping[str, Any]) -> list[str]:
    """Warn of a dropped alpha channel that is not opaque, unless the training dropped alpha as well (``mode``)."""
    low, high = alpha.range
    if not alpha.count.any() or trained_mode(description) is not None or low == high != 0:
        return []
    channels = description["model"]["in_channels"]
    return [
        f"the last channel was dropped (the network takes {channels}) as alpha, but it is not opaque: its values are "
        f"from {low:g} to {high:g}"
    ]


def value_doubts(values: ValueStatistics, description: Mapping[str, Any]) -> list[str]:
    """Return a message for each way in which the values of an image are unlike those of the training images.

    Checkpoints of older versions lack what some checks need; these are skipped.
    """
    low, high = values.range
    if low > high:
        return [f"no pixel of the image holds data: every label is {IGNORE_INDEX}"]
    doubts = unit_doubts(values.dtype, low, high, description)
    if values.count.max() == 1:  # a single pixel is constant
        return doubts
    if low == high:
        doubts.append(f"every value of the image is {low:g}; check the file")
    else:
        doubts += channel_doubts(values, description)
    return doubts


def unit_doubts(dtype: torch.dtype, low: float, high: float, description: Mapping[str, Any]) -> list[str]:
    """Return a message if values of a data type and range are unlikely to be in the units of the training images."""
    if not has_other_units(dtype, low, high, description):
        return []
    minimum, maximum = description["range"]
    return [
        f"{str(dtype).removeprefix('torch.')} values from {low:g} to {high:g}, but the network was trained on "
        f"{description['dtype']} images with values from {minimum:g} to {maximum:g}: the labels are likely to be "
        f"wrong; rescale the image to the units of the training images"
    ]


def has_other_units(dtype: torch.dtype, low: float, high: float, description: Mapping[str, Any]) -> bool:
    """Return whether values are unlikely to be in the units of the training images, by their data type and range."""
    trained, (minimum, maximum) = description.get("dtype"), description.get("range") or (-math.inf, math.inf)
    if trained is None or not math.isfinite(maximum):
        return False
    magnitude, largest = max(-low, high), max(-minimum, maximum)
    if not largest * DARKEST <= magnitude <= largest * BRIGHTEST or low < minimum - (maximum - minimum):
        return True
    if dtype == torch.uint8 and maximum > 255:
        return True
    if trained != "uint8" and low >= 0 and high < DARKER * description.get("smallest_maximum", 0):
        return True
    if trained != "float32":
        unit = dtype.is_floating_point and high <= 1 < maximum
        return unit or low < 0 or high > torch.iinfo(getattr(torch, trained)).max
    if maximum <= 1 and high >= 2:
        return True
    if minimum >= 0:
        return low < -largest * DARKEST
    # The training images have negative values: an image without any is in other units if its type has none, or if the
    # training's mean is near or below zero.
    means, deviations = description["mean"], description["std"]
    centred = all(mean < deviation / 4 for mean, deviation in zip(means, deviations, strict=True))
    unsigned = dtype in (torch.uint8, torch.uint16)
    return minimum < -largest * DARKEST and low >= 0 and (unsigned or centred)


def grid_doubts(axes: str, spacing: Sequence[float], description: Mapping[str, Any]) -> list[str]:
    """Return a message for each way in which the voxels of a NIfTI image are unlike those of the training images.

    Args:
        axes: the directions of its axes, such as ``RAS``.
        spacing: the size of its voxels along each axis.
        description: the checkpoint's, with ``axes`` and ``spacing`` if the training images were NIfTI files.
    """
    doubts = []
    trained = description.get("axes")
    if trained is not None and trained != axes:
        doubts.append(
            f"its axes point to {axes}, those of the training images to {trained}, and they are used as stored; "
            f"reorient the image"
        )
    low, high = description.get("spacing") or (spacing, spacing)
    if any(n < a / MAX_SPACING_RATIO or n > b * MAX_SPACING_RATIO for n, a, b in zip(spacing, low, high, strict=True)):
        doubts.append(
            f"its voxels are {size_range(spacing, spacing)} mm, those of the training images {size_range(low, high)} "
            f"mm; resample the image"
        )
    return doubts


def channel_doubts(values: ValueStatistics, description: Mapping[str, Any]) -> list[str]:
    """Warn of a channel that is constant in the image alone, and of swapped channels."""
    doubts = []
    for channel, (low, high) in enumerate(zip(values.low.tolist(), values.high.tolist(), strict=True)):
        mean, deviation = description["mean"][channel], description["std"][channel]
        always = deviation == 1 and mean == low  # Samples.statistics gives a constant channel a deviation of 1
        if low > high:
            doubts.append(f"channel {channel + 1} has no data")
        elif low == high and not always and description.get("dtype") is not None:
            doubts.append(f"channel {channel + 1} is {low:g} in every pixel, unlike in the training images")
    trained = description.get("first_minus_last_channel")
    if trained and not doubts:
        difference = (values.total[0] / values.count[0] - values.total[-1] / values.count[-1]).item()
        if -2 < difference / trained < -1 / 2:
            doubts.append(
                f"the first and the last channel look swapped (BGR for RGB): their means differ by {difference:.3g}, "
                f"in the training images by {trained:.3g}"
            )
    return doubts
