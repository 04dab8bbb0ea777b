"""The images that a network is probed with: few and varied, of a size that bounds what probing costs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unet.data.dataset import collate
from unet.data.module import SegmentationData
from unet.errors import UserError
from unet.geometry import times

SAMPLES = 2**16
"""Samples of an image's middle that are looked at: 256 along each axis of a picture, 40 of a volume."""


def examples(
    data: SegmentationData, split: str, count: int, total_stride: Sequence[int], strides: int
) -> list[tuple[Tensor, Tensor]]:
    """The middles of the ``count`` most varied images of a split: image (1, C, *S), target (*S).

    S is a multiple of the total stride along every axis, so that the network pads nothing and the same place of two
    images is the same phase of its grid. At least ``strides`` total strides wide, else about ``SAMPLES`` samples.

    Raises:
        UserError: an image that is narrower.
    """
    dataset = data.dataset(split)
    found = []
    for index in data.samples[split].most_varied(count):
        batch = collate([dataset[0, index, index]])
        image, target = batch["image"], batch["target"][0]
        side = round(SAMPLES ** (1 / target.ndim))
        middle = []
        for n, r in zip(target.shape, total_stride, strict=True):
            if n < strides * r:
                raise UserError(
                    f"needs images of {strides} total strides, {times(strides * r for r in total_stride)} samples; "
                    f"{data.samples[split].items[index].name} has {times(target.shape)}"
                )
            length = min(n, max(side, strides * r)) // r * r
            middle.append(slice((n - length) // 2, (n - length) // 2 + length))
        found.append((image[:, :, *middle], target[*middle]))
    return found


def stacked(maps: Sequence[Tensor]) -> Tensor:
    """Maps (1, C, *S) that may differ in size, each from its beginning as far as the smallest reaches: (B, C, *S)."""
    smallest = [min(sizes) for sizes in zip(*(one.shape[2:] for one in maps), strict=True)]
    return torch.cat([one[:, :, *map(slice, smallest)] for one in maps])
