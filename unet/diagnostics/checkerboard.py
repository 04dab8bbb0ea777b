"""Measure checkerboard artifacts: patterns in the logits that come from the network's own grid."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unet.analysis.receptive_field import receptive_fields
from unet.data.module import SegmentationData
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.predictions import map_images
from unet.diagnostics.probe_images import probe_images
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

NUM_IMAGES = 16
CONSTANTS = (-1, 0, 1)
"""Values of the constant images: standard deviations of the training images from their mean."""
MAX_CONSTANT_PIXELS = 2**20
"""Size of the largest constant image."""


def checkerboard(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """Return :func:`imbalance` and :func:`peaks`, from one prediction of ``NUM_IMAGES`` images."""
    net: Any = task.net
    logits, truth = zip(*logits_and_truth(task, data, split), strict=True)
    scores = {}
    with skip_on_error("checkerboard/imbalance"):
        scores |= imbalance(task, logits)
    with skip_on_error("checkerboard/peak"):
        scores |= peaks(logits, truth, net.strides)
    return scores


def imbalance(task: SegmentationTask, logits: Sequence[Tensor]) -> dict[str, float]:
    """Return how much the logits of constant images differ between the phases of the total stride.

    In an image of one color (``CONSTANTS``) two pixels differ only in their position on the network's grid, so any
    variation of the logits is a pattern made by the operators. It is measured in the center of the image, half a
    receptive field from the borders where possible. Source: an upsampling layer leaves no checkerboard if all its
    polyphase filters have the same response to a constant: Sugawara et al. 2019, Checkerboard artifacts free
    convolutional neural networks, https://nowpublishers.com/article/Details/SIP-115.

    Returns:
        ``checkerboard/imbalance``: standard deviation over phases, in units of the standard deviation of ``logits``,
        those of images, averaged over classes and colors.

    Raises:
        UserError: the logits are constant on every image.
    """
    net: Any = task.net
    fields = task.description.get("field") or receptive_fields(task.description["model"]).logits
    margins = [border_margin(field, r, len(fields)) for field, r in zip(fields, net.total_stride, strict=True)]
    size = [2 * margin + r for margin, r in zip(margins, net.total_stride, strict=True)]
    period = [slice(margin, margin + r) for margin, r in zip(margins, net.total_stride, strict=True)]
    images = [(task.normalize.mean + value * task.normalize.std).expand(1, -1, *size) for value in CONSTANTS]
    responses = [response.float().cpu().numpy()[:, :, *period] for response in map_images(task, task, images)]
    scale = np.concatenate([maps[0].flatten(1).numpy() for maps in logits], axis=1).std(1)
    return {"checkerboard/imbalance": relative_std(np.concatenate(responses), scale)}


def border_margin(field: float, stride: int, spatial_dims: int) -> int:
    """Return the pixels between the central period of a constant image and its border, a multiple of the total stride.

    This is half a receptive field, or less where ``MAX_CONSTANT_PIXELS`` limit the image.
    """
    limit = int((MAX_CONSTANT_PIXELS ** (1 / spatial_dims) - stride) / 2)
    return stride * max(1, min(limit, math.ceil(min(field, 2 * limit) / 2) + stride - 1) // stride)


def relative_std(maps: np.ndarray, scale: np.ndarray) -> float:
    """Return the standard deviation over the pixels of maps (B, K, *S), in units of ``scale`` (K,), averaged.

    Channels whose scale is zero do not count. Raises UserError if all are zero.
    """
    varying = scale > 0
    if not varying.any():
        raise UserError("the logits are constant on every image")
    deviations = maps.reshape(*maps.shape[:2], -1).std(-1)
    return float((deviations[:, varying] / scale[varying]).mean())


def peaks(logits: Sequence[Tensor], truth: Sequence[Tensor], strides: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the prominence of the logits' power spectrum at the frequencies of a grid pattern.

    Upsampling by r repeats the spectrum at multiples of 1/r cycles per pixel, and the part of it that is not filtered
    out is a peak. Each level, from fine to coarse, has those multiples that no finer level has. A smooth map, or noise,
    scores about 1. Sources: Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard; in the spectrum: Zhang et
    al. 2019, https://arxiv.org/abs/1907.06515.

    Returns:
        ``checkerboard/peak/<stride>`` for the cumulative stride of each level, and
        ``checkerboard/peak_truth/<stride>`` of the true labels, one channel per class, as a baseline: true labels can
        be blocky as well.

    Raises:
        UserError: the logits are flat, or the images are smaller than four total strides along every axis.
    """
    peak = peaks_by_stride(stack_cropped(logits), strides)
    if not peak:
        raise UserError("the images are smaller than four total strides along every axis, or their logits are flat")
    return {
        f"checkerboard/{name}/{'x'.join(map(str, stride))}": value
        for name, values in (("peak", peak), ("peak_truth", peaks_by_stride(stack_cropped(truth), strides)))
        for stride, value in values.items()
    }


def stack_cropped(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps (1, C, *S), cropped at the end to the smallest size along each axis: (B, C, *S)."""
    smallest = [min(sizes) for sizes in zip(*(item.shape[2:] for item in maps), strict=True)]
    return torch.cat([item[:, :, *map(slice, smallest)] for item in maps])


def peaks_by_stride(maps: Tensor, strides: Sequence[Sequence[int]]) -> dict[tuple[int, ...], float]:
    """Return the mean prominence along all axes of maps (B, C, *S) for the cumulative stride of each level.

    ``strides`` are those of the levels, fine to coarse, and their product divides S. A stride that is the same along
    all axes is a key of one number. Levels without a prominence are left out.
    """
    axes = range(maps.ndim - 2)
    spectra = [np.mean([power_spectrum(item.double().numpy(), 1 + axis) for item in maps], axis=0) for axis in axes]
    levels = np.cumprod([[1] * len(axes), *strides], axis=0).tolist()
    result = {}
    for finer, stride in pairwise(levels):
        values = [
            value
            for axis in axes
            for value in prominences(spectra[axis], maps.shape[2 + axis], stride[axis], finer[axis], levels[-1][axis])
        ]
        if values:
            result[tuple(stride if len(set(stride)) > 1 else stride[:1])] = float(np.mean(values))
    return result


def logits_and_truth(task: SegmentationTask, data: SegmentationData, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and one-hot truth, both (1, K, *S), of the center crops of images; ignored pixels have no class.

    Raises:
        UserError: the network does not downsample, or an image is smaller than its total stride.
    """
    net: Any = task.net
    images, targets = zip(*probe_images(data, split, NUM_IMAGES, net.total_stride), strict=True)
    outputs = map_images(task, lambda image: task(image.to(task.device)).float().cpu(), images)
    for logits, target in zip(outputs, targets, strict=True):
        known = target != IGNORE_INDEX
        truth = F.one_hot(target.where(known, 0), len(task.classes)) * known[..., None]
        yield logits, truth.movedim(-1, 0)[None].float()


def power_spectrum(maps: np.ndarray, axis: int) -> np.ndarray:
    """Return the power along one axis of maps (C, *S) at 0, 1, ..., n/2 cycles per n pixels, averaged over the others.

    Each line is centered and multiplied by a Hann window, which spreads a frequency to its two neighbors only.
    """
    lines = np.moveaxis(maps, axis, -1)
    n = lines.shape[-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    transformed = np.fft.rfft((lines - lines.mean(-1, keepdims=True)) * window)
    return np.mean(np.abs(transformed) ** 2, axis=tuple(range(maps.ndim - 1)))


def prominences(power: np.ndarray, n: int, stride: int, finer: int, total_stride: int) -> Iterator[float]:
    """Yield power (n // 2 + 1,) over the median around it, at each k / stride that is no multiple of 1 / finer.

    The median is geometric: a spectrum that falls by equal factors has no peaks. It is taken half-way to the next
    multiple of 1 / total_stride on either side, without the peak's two neighbors; an axis shorter than four total
    strides has nothing left there, and a median of zero gives no prominence.
    """
    frequencies = np.arange(len(power))
    for k in range(1, stride // 2 + 1):
        if k * finer % stride == 0:
            continue
        peak = k * n // stride
        distance = np.abs(frequencies - peak)
        around = power[(distance > 1) & (distance <= n // (2 * total_stride))]
        if len(around) and around.all():
            yield float(power[peak] / np.exp(np.median(np.log(around))))
