"""Select the images for the diagnostics that run the network: few, with mixed labels, and of limited size."""

import math
from collections.abc import Sequence

from torch import Tensor

from unet.data.module import SegmentationData
from unet.errors import UserError
from unet.network.geometry import times

MAX_PIXELS, MIN_STRIDES = 2**16, 4
"""Size of the center crop: 256 pixels along each axis of an image, 40 of a volume, but at least 4 total strides."""


def probe_images(
    data: SegmentationData, split: str, count: int, total_stride: Sequence[int], min_strides: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Return center crops of the ``count`` images with the most mixed labels: image (1, C, *S), target (*S).

    S is a multiple of the total stride along every axis, so that the network pads nothing and equal positions in two
    crops have the same phase of its grid.

    Raises:
        UserError: the network does not downsample, or an image is smaller than ``min_strides`` total strides along an
            axis.
    """
    if math.prod(total_stride) == 1:
        raise UserError("the network does not downsample, so its grid has no phases")
    dataset = data.dataset(split, "eval")
    crops = []
    for index in data.samples[split].highest_entropy(count):
        batch = dataset.eval_item(index)
        image, target = batch["image"], batch["target"][0]
        if any(n < min_strides * r for n, r in zip(target.shape, total_stride, strict=True)):
            raise UserError(
                f"{data.samples[split].items[index].name} has {times(target.shape)} pixels; expected at least "
                f"{times(min_strides * r for r in total_stride)}, {min_strides} total strides of the network"
            )
        window = center_window(target.shape, total_stride)
        crops.append((image[:, :, *window], target[window]))
    return crops


def center_window(size: Sequence[int], total_stride: Sequence[int]) -> tuple[slice, ...]:
    """Return the center crop of an image of ``size`` as slices."""
    side = round(MAX_PIXELS ** (1 / len(size)))
    lengths = [min(n, max(side, MIN_STRIDES * r)) // r * r for n, r in zip(size, total_stride, strict=True)]
    starts = [(n - length) // 2 for n, length in zip(size, lengths, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
