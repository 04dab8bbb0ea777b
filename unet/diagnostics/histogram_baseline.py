"""Score a per-pixel colour histogram classifier, which has no context, as a baseline.

Every colour, rounded to 32 levels per channel (a single channel to 256), is predicted as its most frequent class in the
training split, and a colour that does not occur there as the first class. The scores are those of a training on the
same evaluated split, in any number of dimensions, before ``eval_transforms``.
"""

import os
from collections.abc import Iterable

import numpy as np
import torch

from unet.data.module import SegmentationData
from unet.data.samples import Samples, evenly_spaced, map_in_threads
from unet.data.source import Array
from unet.task.metrics import ConfusionMatrix

MAX_IMAGES, MAX_PIXELS = 1000, 2**26
"""Training images, and about how many pixels in them, whose colours a training counts: a second of work if cached."""
BLOCK = 2**20
"""Pixels whose colours are computed at a time, so that large volumes need little memory."""


def baseline_scores(data: SegmentationData, limit: bool = True) -> dict[str, float]:
    """Return the scores of the classifier on all images of the evaluated split.

    Args:
        limit: whether evenly spaced training images up to ``MAX_IMAGES`` and ``MAX_PIXELS`` are used instead of all.
    """
    train, evaluated = data.samples["train"], data.samples[data.eval_split]
    most = min(MAX_IMAGES, max(1, MAX_PIXELS * len(train) // train.num_pixels)) if limit else len(train)
    span = value_span(train)
    votes = colour_votes(train, evenly_spaced(len(train), most), span)
    pred = votes.argmax(1)
    truth = colour_votes(evaluated, range(len(evaluated)), span)
    confusion = ConfusionMatrix(data.source.num_classes)
    for label in range(confusion.num_classes):
        confusion.counts[:, label] = torch.from_numpy(truth[pred == label].sum(0))
    return confusion.scores(data.source.classes)


def histogram_kind(channels: int) -> str:
    """Return what the classifier looks at."""
    return "intensity" if channels == 1 else "colour"


def levels(channels: int) -> int:
    """Return the levels per channel: 32 for 2^15 colours, or 256 intensities."""
    return 256 if channels == 1 else 32


def value_span(samples: Samples) -> tuple[float, float]:
    """Return the range of values that is divided into levels: 0 to 256 of 8-bit images, else minimum to maximum."""
    if samples.dtype == np.uint8:
        return 0, 256
    low, high = samples.range
    return low, float(np.nextafter(np.float32(high), np.float32(np.inf)))


def value_levels(values: Array, span: tuple[float, float], number: int) -> Array:
    """Return the levels of values; values outside of ``span`` are clipped, and NaN is its lower end."""
    values = np.fmin(np.fmax(values.astype(np.float64), span[0]), span[1])
    return np.minimum((values - span[0]) * number / (span[1] - span[0]), number - 1).astype(np.intp)


def colour_codes(image: Array, span: tuple[float, float] = (0, 256)) -> Array:
    """Return the colour code of every pixel of an image (*S, C), from its first three channels."""
    number = levels(image.shape[-1])
    channels = image.reshape(-1, image.shape[-1]).T[:3]
    codes = np.zeros(channels.shape[1], np.intp)
    table = value_levels(np.arange(256), span, number)
    for channel, values in enumerate(channels):
        if values.dtype == np.uint8:  # a table of all values is several times as fast
            codes += (table * number**channel)[values]
        else:
            codes += value_levels(values, span, number) * number**channel
    return codes


def colour_votes(samples: Samples, indices: Iterable[int], span: tuple[float, float] = (0, 256)) -> Array:
    """Return the counts (colours, classes) of every colour in every class over the items of ``indices``."""
    classes = samples.num_classes
    votes = np.zeros((levels(samples.channels) ** min(3, samples.channels), classes + 1), np.int64)
    for image, target in map_in_threads(samples.__getitem__, indices, os.cpu_count() or 1):
        pixels, labels = image.reshape(-1, samples.channels), np.minimum(target.ravel(), classes)  # the last: ignored
        for start in range(0, len(labels), BLOCK):
            block = slice(start, start + BLOCK)
            np.add.at(votes.reshape(-1), colour_codes(pixels[block], span) * (classes + 1) + labels[block], 1)
    return votes[:, :classes]
