"""One image file predicted: read in bands, labelled tile by tile, written in bands."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from unet.apply import How, channels_fit, label, parts
from unet.data.source import Array
from unet.prediction.overlay import Overlay
from unet.prediction.reading import Stored, open_image
from unet.prediction.writing import labels_to, numbers_to
from unet.record import whole
from unet.segmenter import Segmenter

Bands = Iterator[tuple[int, Array, Array | None]]
"""Where a band begins, its labels (rows, *S[1:]) uint8, and its probabilities (rows, *S[1:], K) float16 if wanted."""


def predict_file(
    model: Segmenter, path: Path, labels: Path, how: How, probabilities: Path | None = None, overlay: Path | None = None
) -> tuple[int, ...]:
    """Write the labels of an image file, and what else has a path; every file appears whole or not at all.

    Returns:
        The image's size along each axis.

    Raises:
        UserError: an image that cannot be read, or that the network cannot be given.
    """
    image = open_image(path, model.net.spatial_dims)
    channels_fit(np.empty((0, image.channels)), model.net.in_channels)
    with ExitStack() as stack:
        sinks = [stack.enter_context(labels_to(labels, path, image.size, model.colors))]
        if probabilities is not None:
            shape = (*image.size, len(model.classes))
            sinks.append(stack.enter_context(numbers_to(probabilities, shape, "float16")))
        picture = None
        if overlay is not None:
            picture = Overlay(stack.enter_context(whole(overlay)), image.size, model.colors)
        for begin, found, shares in bands(model, image, how, probabilities is not None):
            for sink, band in zip(sinks, (found, shares), strict=False):
                if band is not None:
                    sink.write(band)
            if picture is not None:
                picture.write(image.rows(begin, begin + len(found)), found)
        if picture is not None:
            picture.close()
    return image.size


def bands(model: Segmenter, image: Stored, how: How, probabilities: bool) -> Bands:
    """The labels of an image from its first row to its last, as many rows at a time as are final."""
    how.check(model.net.spatial_dims)
    if model.steps and how.transforms:  # a resize needs the whole picture
        found, shares = label(model, image.rows(0, image.size[0]), how, probabilities)
        yield 0, found.numpy(), None if shares is None else shares.numpy()
        return

    def read(window: tuple[slice, ...]) -> torch.Tensor:
        return image.window(window, model.net.in_channels)

    for begin, row in groupby(parts(model, read, image.size, how), key=lambda part: part[0][0].start):
        found, shares = np.empty(0, np.uint8), None
        for window, logits in row:
            if not found.size:
                shape = (window[0].stop - begin, *image.size[1:])
                found = np.empty(shape, np.uint8)
                shares = np.empty((*shape, logits.shape[1]), np.float16) if probabilities else None
            # The indices of max are those of argmax, in an eighth of its time.
            found[:, *window[1:]] = logits[0].max(0).indices.cpu().numpy()
            if shares is not None:
                shares[:, *window[1:]] = logits[0].softmax(0).half().movedim(0, -1).cpu().numpy()
        yield begin, found, shares
