"""Predict one image file band by band, so that neither the image nor its labels need fit into memory."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from unet.inference.image_values import check_channels
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter, predict_windows, report_doubts
from unet.inference.value_check import grid_doubts
from unet.io.arrays import voxel_grid
from unet.io.atomic import atomic_write
from unet.io.channel_files import ChannelReader, open_channels
from unet.io.image_formats import Array
from unet.io.image_reader import ImageReader, ReadOptions
from unet.labels import IGNORE_INDEX
from unet.prediction.overlay import OverlayWriter
from unet.prediction.writing import open_label_writer, open_npy_writer

LEVEL_COLORS = [*([level] * 3 for level in range(255)), [255, 0, 0]]
"""The colours of the levels of the uncertainty: grey, and red where there are no data."""


def predict_file(
    model: Segmenter,
    path: Path | Sequence[Path],
    labels: Path,
    options: PredictOptions,
    probabilities: Path | None = None,
    overlay: Path | None = None,
    warn: Callable[[str], None] = warnings.warn,
    label_format: str = "index",
    uncertainty: Path | None = None,
) -> tuple[int, ...]:
    """Write the labels of an image file, and the other outputs that have a path; return the size of the image.

    ``path`` may be one file for each channel, in the order of the training. ``warn`` gets a message for each reason why
    the labels are doubtful; ``label_format`` is a key of :data:`unet.prediction.writing.LABEL_FORMATS`. The uncertainty
    is that of :func:`entropy_levels`, in the format of the labels. No partial file remains.

    Raises:
        UserError: the image cannot be read, the network cannot take it, or it is doubtful and ``options.strict`` is
            True.
    """
    paths = [path] if isinstance(path, Path) else path
    # The channels are converted to the training's mode afterwards, by the same code as those of an array.
    reading = replace(ReadOptions.from_description(model.description), mode=None)
    channels = model.net.in_channels if len(paths) == 1 else 1
    image = open_channels(paths, model.net.spatial_dims, options=reading, channels=channels, in_parts=True)
    check_channels((*image.size, image.channels), model.description)
    if isinstance(image, ImageReader) and image.stored.affine is not None:
        report_doubts(grid_doubts(*voxel_grid(image.stored.affine), model.description), options, warn)
    with ExitStack() as stack:
        write_labels = stack.enter_context(open_label_writer(labels, paths[0], image.size, model.colors, label_format))
        write_scores = write_uncertainty = overlay_writer = None
        if probabilities is not None:
            shape = (*image.size, len(model.classes))
            write_scores = stack.enter_context(open_npy_writer(probabilities, shape, "float16"))
        if uncertainty is not None:
            output = open_label_writer(uncertainty, paths[0], image.size, LEVEL_COLORS, label_format)
            write_uncertainty = stack.enter_context(output)
        if overlay is not None:
            overlay_writer = OverlayWriter(stack.enter_context(atomic_write(overlay)), image.size, model.colors)
        needs_scores = write_scores is not None or write_uncertainty is not None
        for begin, band, scores in predict_bands(model, image, options, needs_scores, warn):
            write_labels(band)
            if write_scores is not None and scores is not None:
                write_scores(scores)
            if write_uncertainty is not None and scores is not None:
                write_uncertainty(entropy_levels(scores))
            if overlay_writer is not None:
                overlay_writer.write(image.rows(begin, begin + len(band)), band)
        if overlay_writer is not None:
            overlay_writer.close()
    return image.size


def entropy_levels(probabilities: Array) -> Array:
    """Return the entropy of probabilities (*S, K) in units of its maximum, log K, as uint8 levels (*S).

    0: one class is certain; 254: all classes are equally likely; ``IGNORE_INDEX``: the image has no data here.
    """
    values = probabilities.astype(np.float32)
    entropy = -(values * np.log(np.maximum(values, np.finfo(np.float32).tiny))).sum(-1)
    entropy /= np.log(max(2, values.shape[-1]))  # a network of one class is always certain
    return np.where(np.isnan(entropy), IGNORE_INDEX, np.rint(254 * np.clip(entropy, 0, 1))).astype(np.uint8)


def predict_bands(
    model: Segmenter,
    image: ImageReader | ChannelReader,
    options: PredictOptions,
    probabilities: bool,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[int, Array, Array | None]]:
    """Yield (first row, labels (rows, *S[1:]) uint8, probabilities (rows, *S[1:], K) float16 or None) of an image.

    The bands follow each other from the first row to the last, each as soon as its labels are final.
    """
    windows = predict_windows(model, image.window, image.size, options, probabilities, warn)
    for begin, band_windows in groupby(windows, key=lambda item: item[0][0].start):
        labels, scores = np.empty(0, np.uint8), None
        for window, window_labels, window_scores in band_windows:
            if not labels.size:
                shape = (window[0].stop - begin, *image.size[1:])
                labels = np.empty(shape, np.uint8)
                scores = np.empty((*shape, len(model.classes)), np.float16) if probabilities else None
            labels[:, *window[1:]] = window_labels.numpy()
            if scores is not None and window_scores is not None:
                scores[:, *window[1:]] = window_scores.numpy()
        yield begin, labels, scores
