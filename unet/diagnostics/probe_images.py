"""The images that a network is probed with: few and varied, of a size that bounds what probing costs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unet.data.module import SegmentationData
from unet.errors import UserError
from unet.network.geometry import times

SAMPLES, STRIDES = 2**16, 4
"""How much of an image's middle is looked at: 256 samples along each axis of a picture, 40 of a volume, but no fewer
than 4 total strides."""


def examples(
    data: SegmentationData, split: str, count: int, total_stride: Sequence[int], least: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """The middles of the ``count`` most varied images of a split: image (1, C, *S), target (*S).

    S is a multiple of the total stride along every axis, so that the network pads nothing and the same place of two
    images is the same phase of its grid.

    Raises:
        UserError: an image of less than ``least`` total strides along an axis.
    """
    dataset = data.dataset(split, "eval")
    found = []
    for index in data.samples[split].highest_entropy(count):
        batch = dataset.eval_item(index)
        image, target = batch["image"], batch["target"][0]
        if any(n < least * r for n, r in zip(target.shape, total_stride, strict=True)):
            raise UserError(
                f"needs images of {times(least * r for r in total_stride)} at least, {least} total strides; "
                f"{data.samples[split].items[index].name} has {times(target.shape)}"
            )
        window = middle(target.shape, total_stride)
        found.append((image[:, :, *window], target[window]))
    return found


def middle(size: Sequence[int], total_stride: Sequence[int]) -> tuple[slice, ...]:
    """The middle of an image of ``size`` that is looked at."""
    side = round(SAMPLES ** (1 / len(size)))
    lengths = [min(n, max(side, STRIDES * r)) // r * r for n, r in zip(size, total_stride, strict=True)]
    starts = [(n - length) // 2 for n, length in zip(size, lengths, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


def stacked(maps: Sequence[Tensor]) -> Tensor:
    """Maps (1, C, *S) that may differ in size, each from its beginning as far as the smallest reaches: (B, C, *S)."""
    smallest = [min(sizes) for sizes in zip(*(one.shape[2:] for one in maps), strict=True)]
    return torch.cat([one[:, :, *map(slice, smallest)] for one in maps])
