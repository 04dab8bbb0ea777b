"""Predict one image file: read in bands, labelled tile by tile, written in bands."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import numpy as np

from unet.inference.image_values import match_channels
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter, predict_windows
from unet.io.atomic import atomic_write
from unet.io.image_formats import Array
from unet.prediction.overlay import Overlay
from unet.prediction.reading import ImageReader, open_image
from unet.prediction.writing import open_label_writer, open_npy_writer


def predict_file(
    model: Segmenter,
    path: Path,
    labels: Path,
    how: PredictOptions,
    probabilities: Path | None = None,
    overlay: Path | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[int, ...]:
    """Write the labels of an image file, and the other outputs that have a path; no partial file is left behind.

    Returns:
        The size of the image along each axis.

    Raises:
        UserError: the image cannot be read, or the network cannot take it.
    """
    image = open_image(path, model.net.spatial_dims)
    match_channels(np.empty((0, image.channels)), model.net.in_channels)
    with ExitStack() as stack:
        label_file = stack.enter_context(open_label_writer(labels, path, image.size, model.colors))
        score_file = picture = None
        if probabilities is not None:
            shape = (*image.size, len(model.classes))
            score_file = stack.enter_context(open_npy_writer(probabilities, shape, "float16"))
        if overlay is not None:
            picture = Overlay(stack.enter_context(atomic_write(overlay)), image.size, model.colors)
        for begin, band, scores in predict_bands(model, image, how, score_file is not None, warn):
            label_file.write(band)
            if score_file is not None and scores is not None:
                score_file.write(scores)
            if picture is not None:
                picture.write(image.rows(begin, begin + len(band)), band)
        if picture is not None:
            picture.close()
    return image.size


def predict_bands(
    model: Segmenter,
    image: ImageReader,
    how: PredictOptions,
    probabilities: bool,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[int, Array, Array | None]]:
    """Yield (first row, labels (rows, *S[1:]) uint8, probabilities (rows, *S[1:], K) float16 or None) of an image.

    The bands follow each other from the first row to the last, each as soon as its labels are final.
    """
    windows = predict_windows(model, image.window, image.size, how, probabilities, warn)
    for begin, row in groupby(windows, key=lambda part: part[0][0].start):
        band, scores = np.empty(0, np.uint8), None
        for window, window_labels, window_scores in row:
            if not band.size:
                shape = (window[0].stop - begin, *image.size[1:])
                band = np.empty(shape, np.uint8)
                scores = np.empty((*shape, len(model.classes)), np.float16) if probabilities else None
            band[:, *window[1:]] = window_labels.numpy()
            if scores is not None and window_scores is not None:
                scores[:, *window[1:]] = window_scores.numpy()
        yield begin, band, scores
