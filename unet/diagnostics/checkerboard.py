"""Whether the network's own grid shows in what it puts out."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from unet.analysis.receptive_field import receptive_fields
from unet.data.module import SegmentationData
from unet.diagnostics.probe_images import examples, stacked
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

Array = np.ndarray
IMAGES = 16
COLOURS = (-1, 0, 1)
"""What a constant image shows: in standard deviations of the training images, from their mean."""
CONSTANT_SAMPLES = 2**20
"""Samples of the largest constant input."""


def imbalance(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """How much the logits of images without any content differ from phase to phase of the total stride.

    Images of one colour (``COLOURS``) have nothing that tells two samples apart but their place on the grid, so any
    spread is a pattern of the operators' making. It is taken in their middle, half the receptive field from the borders
    where that is possible. Source: the condition under which an upsampling layer leaves no checkerboard, that all its
    polyphase filters answer alike to a constant: Sugawara et al. 2019, Checkerboard artifacts free convolutional neural
    networks, https://nowpublishers.com/article/Details/SIP-115.

    Returns:
        ``checkerboard/imbalance``: standard deviation over phases, in units of the logits' own on the ``IMAGES`` most
        varied images, averaged over classes and colours.

    Raises:
        UserError: a network that does not shrink, or whose logits do not vary on any image.
    """
    net: Any = task.net
    if math.prod(net.total_stride) == 1:
        raise UserError("a network that does not shrink has no phases")
    fields = receptive_fields(task.description["model"]).logits
    margins = [margin(field, r, len(fields)) for field, r in zip(fields, net.total_stride, strict=True)]
    size = [2 * away + r for away, r in zip(margins, net.total_stride, strict=True)]
    period = [slice(away, away + r) for away, r in zip(margins, net.total_stride, strict=True)]
    images = [(task.normalize.mean + colour * task.normalize.std).expand(1, -1, *size) for colour in COLOURS]
    responses = np.concatenate([task(image).float().cpu().numpy()[:, :, *period] for image in images])
    real = logits_of(task, data, split)
    deviation = np.concatenate([one[0].flatten(1).numpy() for one, _ in real], axis=1).std(1)
    return {"checkerboard/imbalance": spread(responses, deviation)}


def margin(field: float, stride: int, spatial_dims: int) -> int:
    """Samples between the middle period of the constant image and its border, a multiple of the total stride.

    Half a receptive field, or what ``CONSTANT_SAMPLES`` leave room for.
    """
    room = int((CONSTANT_SAMPLES ** (1 / spatial_dims) - stride) / 2)
    return stride * max(1, min(room, math.ceil(min(field, 2 * room) / 2) + stride - 1) // stride)


def spread(responses: Array, deviation: Array) -> float:
    """Standard deviation over the samples of maps (B, K, *S), per channel in units of ``deviation`` (K,); the mean.

    Channels that do not deviate are left out. Raises UserError where none does.
    """
    varied = deviation > 0
    if not varied.any():
        raise UserError("the logits are the same everywhere")
    spreads = responses.reshape(*responses.shape[:2], -1).std(-1)
    return float((spreads[:, varied] / deviation[varied]).mean())


def peaks(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """How far the logits' power spectrum stands out where a pattern of the grid has its frequencies.

    A stage that brings samples r apart to samples 1 apart repeats the spectrum at multiples of 1/r cycles a sample, and
    what of that is not filtered out is a peak. Of each level, from fine to coarse, only those multiples are looked at
    that no finer level has. A smooth map, or noise, has about 1. Sources: Odena et al. 2016,
    https://distill.pub/2016/deconv-checkerboard; in the spectrum: Zhang et al. 2019, https://arxiv.org/abs/1907.06515.

    Returns:
        ``checkerboard/peak/<stride>`` for the cumulative stride of each level, over the middles of the ``IMAGES`` most
        varied images, and ``checkerboard/peak_truth/<stride>`` of their true labels, one channel a class. A baseline,
        for a true map may be blocky as well.

    Raises:
        UserError: a network that does not shrink, flat logits, or images of less than four total strides along every
            axis.
    """
    net: Any = task.net
    if math.prod(net.total_stride) == 1:
        raise UserError("a network that does not shrink has no phases")
    logits, truth = zip(*logits_of(task, data, split), strict=True)
    found = {"peak": peaks_by_stride(stacked(logits), net.strides)}
    found["peak_truth"] = peaks_by_stride(stacked(truth), net.strides)
    if not found["peak"]:
        raise UserError("the images are less than four total strides along every axis, or their logits are flat")
    return {
        f"checkerboard/{name}/{'x'.join(map(str, stride))}": value
        for name, values in found.items()
        for stride, value in values.items()
    }


def peaks_by_stride(maps: Tensor, strides: Sequence[Sequence[int]]) -> dict[tuple[int, ...], float]:
    """For the cumulative stride of each level, the mean prominence of its frequencies along all axes of (B, C, *S).

    ``strides`` are the stages', fine to coarse, and their product divides S. A stride that is the same along all axes
    is given once. What has no prominence is left out.
    """
    axes = range(maps.ndim - 2)
    spectra = [np.mean([spectrum(one.double().numpy(), 1 + axis) for one in maps], axis=0) for axis in axes]
    levels = np.cumprod([[1] * len(axes), *strides], axis=0).tolist()
    found = {}
    for finer, stride in pairwise(levels):
        values = [
            value
            for axis in axes
            for value in prominences(spectra[axis], maps.shape[2 + axis], stride[axis], finer[axis], levels[-1][axis])
        ]
        if values:
            found[tuple(stride if len(set(stride)) > 1 else stride[:1])] = float(np.mean(values))
    return found


def logits_of(task: SegmentationTask, data: SegmentationData, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and one-hot truth, both (1, K, *S), of the middles of the most varied images; where ignored, no class."""
    net: Any = task.net
    for image, target in examples(data, split, IMAGES, net.total_stride):
        logits = task(image.to(task.device)).float().cpu()
        known = target != IGNORE_INDEX
        truth = F.one_hot(target.where(known, 0), len(task.classes)) * known[..., None]
        yield logits, truth.movedim(-1, 0)[None].float()


def spectrum(maps: Array, axis: int) -> Array:
    """Power along one axis of maps (C, *S), at 0, 1, ..., n/2 cycles per n samples, the mean over everything else.

    Each line goes without its mean and under a Hann window, which spreads a frequency to its two neighbours only.
    """
    lines = np.moveaxis(maps, axis, -1)
    n = lines.shape[-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    transformed = np.fft.rfft((lines - lines.mean(-1, keepdims=True)) * window)
    return np.mean(np.abs(transformed) ** 2, axis=tuple(range(maps.ndim - 1)))


def prominences(power: Array, n: int, stride: int, finer: int, total_stride: int) -> Iterator[float]:
    """Power (n // 2 + 1,) at each k / stride that is no multiple of 1 / finer, over the median of its surroundings.

    The median is of logarithms: where a spectrum falls by equal factors nothing stands out. The surroundings reach
    half-way to the next multiple of 1 / total_stride on either side, without the peak's two neighbours. In less than
    four total strides nothing is left of them, and where they hold no power there is nothing to compare with.
    """
    places = np.arange(len(power))
    for k in range(1, stride // 2 + 1):
        if k * finer % stride == 0:
            continue
        place = k * n // stride
        apart = np.abs(places - place)
        around = power[(apart > 1) & (apart <= n // (2 * total_stride))]
        if len(around) and around.all():
            yield float(power[place] / np.exp(np.median(np.log(around))))
