"""Whether the labels stay with the image when it moves against the network's grid."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.data.module import SegmentationData
from unet.diagnostics.probe_images import examples
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

IMAGES, PHASES = 4, 32


def shift(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """How often a sample keeps its label when the image is shifted, over all phases of the total stride.

    The middles of the ``IMAGES`` most varied images are shifted by every offset below the total stride, of more than
    ``PHASES`` by that many drawn at random (the same in every run), and their predictions are shifted back.
    Source: the shift consistency of Zhang 2019, https://arxiv.org/abs/1904.11486, sample by sample.

    Returns:
        ``shift/agreement``, the mean over phases; ``shift/worst``, the phase with the least; ``shift/accuracy`` of the
        same samples unshifted, for whoever predicts one label everywhere agrees with himself.

    Raises:
        UserError: a network that does not shrink, or an image of less than two total strides.
    """
    net: Any = task.net
    offsets = phases(net.total_stride, PHASES)
    if not offsets:
        raise UserError("a network that does not shrink has no phases")

    def predict(image: Tensor) -> Tensor:
        return task.predict_labels(task(image))[0]

    kept, right, total = np.zeros(len(offsets), np.int64), 0, 0
    for image, target in examples(data, split, IMAGES, net.total_stride, least=2):
        window = compared(target.shape, net.total_stride)
        truth = target[window].to(task.device)
        known = truth != IGNORE_INDEX
        image = image.to(task.device)
        still = predict(image)[window]
        moved = (shifted(predict, image, offset)[window] for offset in offsets)
        kept += [int((labels == still)[known].sum()) for labels in moved]
        right += int((still == truth)[known].sum())
        total += int(known.sum())
    if not total:
        raise UserError("nothing is labelled away from the borders")
    agreement = kept / total
    return {
        "shift/agreement": float(agreement.mean()),
        "shift/worst": float(agreement.min()),
        "shift/accuracy": right / total,
    }


def phases(total_stride: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Every offset below the total stride but none at all, or ``most`` of them, the same every time."""
    found = list(product(*map(range, total_stride)))[1:]
    if len(found) <= most:
        return found
    return [found[place] for place in sorted(np.random.default_rng(0).choice(len(found), most, replace=False))]


def compared(size: Sequence[int], total_stride: Sequence[int]) -> tuple[slice, ...]:
    """The samples that no offset below the total stride brings closer to a border than a quarter of the image.

    A margin of half the receptive field would be larger than most images; what is this far from a border depends on it
    little.
    """
    return tuple(slice(n // 4, n - n // 4 - r + 1) for n, r in zip(size, total_stride, strict=True))


def shifted(predict: Callable[[Tensor], Tensor], image: Tensor, offset: Sequence[int]) -> Tensor:
    """Labels (*S) of an image (1, C, *S) that was shifted by ``offset`` samples, shifted back.

    What leaves the image on one side comes back on the other.
    """
    axes = range(-len(offset), 0)
    labels = predict(torch.roll(image, tuple(offset), tuple(axes)))
    return torch.roll(labels, [-n for n in offset], tuple(axes))
