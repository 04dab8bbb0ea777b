"""Measure whether predictions stay the same when the image is shifted against the network's grid."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.data.module import SegmentationData
from unet.diagnostics.predictions import map_images
from unet.diagnostics.probe_images import probe_images
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

NUM_IMAGES, MAX_OFFSETS = 4, 16


def shift(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """Return how often a pixel keeps its label when the image is shifted, over all phases of the total stride.

    The center crops of ``NUM_IMAGES`` images are shifted by the offsets of :func:`grid_offsets`, and their predictions
    are shifted back. Source: the shift consistency of Zhang 2019, https://arxiv.org/abs/1904.11486, pixel by pixel.

    Returns:
        ``shift/agreement``, the mean over offsets; ``shift/worst``, the minimum; ``shift/accuracy`` of the same pixels
        unshifted, because a network that predicts one label everywhere agrees with itself.

    Raises:
        UserError: the network does not downsample, or an image is smaller than two total strides.
    """
    net: Any = task.net
    offsets = grid_offsets(net.total_stride)
    unshifted = (0,) * len(net.total_stride)

    def predict(image: Tensor) -> Tensor:
        return task.predict_labels(task(image))[0]

    equal, correct, total = np.zeros(len(offsets), np.int64), 0, 0
    for image, target in probe_images(data, split, NUM_IMAGES, net.total_stride, min_strides=2):
        window = compared_window(target.shape, net.total_stride)
        truth = target[window].to(task.device)
        known = truth != IGNORE_INDEX
        labels = map_images(task, partial(predict_shifted, predict, image.to(task.device)), [unshifted, *offsets])
        first, *others = (label[window][known] for label in labels)
        equal += torch.stack([(other == first).sum() for other in others]).cpu().numpy()
        correct += int((first == truth[known]).sum())
        total += int(known.sum())
    if not total:
        raise UserError("all pixels away from the image borders are ignored; expected some with a label")
    agreement = equal / total
    mean, worst = float(agreement.mean()), float(agreement.min())
    return {"shift/agreement": mean, "shift/worst": worst, "shift/accuracy": correct / total}


def grid_offsets(total_stride: Sequence[int], count: int = MAX_OFFSETS) -> list[tuple[int, ...]]:
    """Return every offset below the total stride except zero, or a Latin hypercube of at most ``count``.

    In a Latin hypercube every axis has each of its phases equally often, as far as ``count`` allows. It is the same in
    every run.
    """
    if math.prod(total_stride) <= count:
        offsets = list(product(*map(range, total_stride)))
    else:
        rng = np.random.default_rng(0)
        offsets = sorted(
            zip(*(rng.permutation(np.resize(np.arange(r), count)).tolist() for r in total_stride), strict=True)
        )
    return [offset for offset in offsets if any(offset)]


def compared_window(size: Sequence[int], total_stride: Sequence[int]) -> tuple[slice, ...]:
    """Return the pixels that every offset keeps at least a quarter of the image away from its borders.

    A margin of half the receptive field would be larger than most images; at this distance the borders matter little.
    """
    return tuple(slice(n // 4, n - n // 4 - r + 1) for n, r in zip(size, total_stride, strict=True))


def predict_shifted(predict: Callable[[Tensor], Tensor], image: Tensor, offset: Sequence[int]) -> Tensor:
    """Return the labels (*S) of an image (1, C, *S) rolled by ``offset`` pixels, rolled back."""
    axes = range(-len(offset), 0)
    labels = predict(torch.roll(image, tuple(offset), tuple(axes)))
    return torch.roll(labels, [-n for n in offset], tuple(axes))
