"""A trained network with its preprocessing, and prediction of images of any size. Needs torch alone."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, Literal, Never

import torch
from torch import Tensor, nn

from unet.analysis.receptive_field import Field, receptive_fields
from unet.errors import UserError, did_you_mean
from unet.hardware import native_bf16
from unet.inference.image_values import as_tensor, check_channels, mark_missing
from unet.inference.options import PredictOptions
from unet.inference.preprocessing import apply_eval_transforms
from unet.inference.tiling import Network, Tiling, overlap_samples, place_tiles, sliding_window, stitch
from unet.inference.tta import with_tta
from unet.inference.value_check import InputConverter
from unet.labels import IGNORE_INDEX
from unet.network.geometry import Window, times
from unet.network.model import UNet
from unet.network.normalization import Normalize, adjust_logits, apply_gamma

DEFAULT_TILE = {1: 2**18, 2: 1024, 3: 96}
"""Size of a tile along each axis, by the number of axes: about a million pixels."""


class Segmenter(nn.Module):
    """A trained network with its preprocessing: image as stored (B, C, *S) -> logits (B, K, *S).

    The label of a pixel is the class with the largest logit.

    Args:
        description: the description in a checkpoint: ``model`` (the arguments of :class:`UNet`), ``classes``,
            ``colors``, ``mean`` and ``std`` of each channel, ``log_weights``; and, except in older checkpoints,
            ``dtype`` and ``range`` of the training images, ``eval_transforms``, ``eval_tile``, ``eval_overlap`` and the
            receptive ``field``.
        net: takes standardized images to logits; None: a new :class:`UNet`.

    Attributes:
        classes: names of the K classes.
        colors: their RGB colours, 0 to 255.
    """

    log_weights: Tensor

    def __init__(self, description: dict[str, Any], net: Any = None):
        super().__init__()
        model = description["model"]
        self.description = description
        self.net = UNet(**model) if net is None else net
        self.normalize = Normalize(description["mean"], description["std"], model["spatial_dims"])
        self.classes: list[str] = description["classes"]
        self.colors: list[list[int]] = description["colors"]
        shift = description.get("log_weights") or [0.0] * len(self.classes)
        if not len(self.classes) == len(self.colors) == len(shift) == model["num_classes"]:
            raise UserError(
                f"{len(self.classes)} classes, {len(self.colors)} colours and {len(shift)} log weights for the "
                f"{model['num_classes']} logits of the network"
            )
        self.register_buffer("log_weights", torch.tensor(shift), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        image = apply_gamma(image, self.description.get("gamma", 1.0))
        return adjust_logits(self.net(self.normalize(image)), self.log_weights)

    @cached_property
    def field(self) -> Field:
        """Return the receptive field of a logit along each axis, in pixels; measured if the checkpoint lacks it."""
        field = self.description.get("field")
        return tuple(field) if field else receptive_fields(self.description["model"]).logits

    @property
    def eval_transforms(self) -> list[dict[str, Any]]:
        """Return the transforms of the evaluation; see :func:`unet.inference.preprocessing.apply_eval_transforms`."""
        return self.description.get("eval_transforms") or []

    def predict(
        self,
        image: Any,
        probabilities: bool = False,
        *,
        tile: Sequence[int] | None = None,
        overlap: float | None = None,
        tta: bool = False,
        batch: int = 1,
        precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
        transforms: bool = True,
        threshold: float | None = None,
        strict: bool = False,
        temperature: float = 1.0,
        **unknown: Never,
    ) -> Any:
        """Return the labels of one image of any size; large images are predicted in overlapping tiles.

        The labels are identical to those that ``unet-lab predict`` writes. A warning is issued where they are doubtful,
        because the values of the image are unlike those of the training images: in other units, constant, with a
        dropped alpha channel that is not opaque, or in the order BGR.

        Args:
            image: a numpy array or a tensor of shape (*S), or (*S, C) with channels last, RGB, with values as stored in
                the image file: 8-bit or 16-bit integers or floats, not rescaled. Grey is repeated to RGB, alpha is
                dropped, and RGB is converted to grey if the training did so (``data.source.mode=L``).
            probabilities: if True, also return the probability of every class.
            tile: size of a tile along each axis, in pixels. Default: ``data.eval_tile`` of the training, or about a
                million pixels.
            overlap: fraction of a tile that adjacent tiles share, 0 to below 1. Default: ``data.eval_overlap`` of the
                training if its tile is used, else the receptive field, at most half a tile.
            tta: test-time augmentation: average the logits over flips and, for 2-D images, rotations by 90 degrees.
            batch: number of tiles in one forward pass.
            precision: ``"auto"`` (bfloat16 if the hardware supports it natively), ``"32-true"`` or ``"bf16-mixed"``.
            transforms: whether to apply the evaluation transforms of the training (``data.eval_transforms``).
            threshold: for two classes: the label is 1 where the probability of class 1 exceeds it, 0 to 1, both
                excluded. Default: the class with the largest probability.
            strict: whether a doubtful image is an error instead of a warning.
            temperature: the logits are divided by it before the softmax, which changes the probabilities and the labels
                of a ``threshold``; a run's ``calibration/temperature`` is fitted to its validation images.

        Returns:
            The labels (*S) as uint8, or with ``probabilities`` a tuple of the labels and the probabilities (*S, K) as
            float16: numpy arrays, or CPU tensors if ``image`` is a tensor.

        Raises:
            UserError: the network does not support the shape, the channels or the values of the image, an option has an
                invalid value, or the image is doubtful and ``strict`` is True.
            TypeError: an option is unknown.
        """
        options = PredictOptions(tile, overlap, tta, batch, precision, transforms, threshold, strict, temperature)
        for name in unknown:
            valid = [field.name for field in fields(options)]
            raise TypeError(f"predict: no option {name!r}{did_you_mean(name, valid)} (valid: {', '.join(valid)})")
        labels, scores = predict_array(self, image, options, probabilities)
        if not isinstance(image, Tensor):
            labels, scores = labels.numpy(), None if scores is None else scores.numpy()
        return (labels, scores) if probabilities else labels


def predict_array(
    model: Segmenter, image: Any, options: PredictOptions, probabilities: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the labels and probabilities of :meth:`Segmenter.predict` as tensors; its errors are raised here."""
    spatial_dims = model.net.spatial_dims
    image = as_tensor(image)
    if image.ndim not in (spatial_dims, spatial_dims + 1) or 0 in image.shape:
        raise UserError(
            f"an image of {times(image.shape)}: expected {spatial_dims} axes, or {spatial_dims + 1} with the channels "
            f"last (colours as RGB), none of them empty; one image at a time"
        )
    image = image[..., None] if image.ndim == spatial_dims else image
    check_channels(image.shape, model.description)
    image = mark_missing(image, model.description.get("reading", {}).get("nodata"))
    size = image.shape[:-1]
    labels = torch.empty(size, dtype=torch.uint8)
    scores = torch.empty(*size, len(model.classes), dtype=torch.float16) if probabilities else None
    for window, window_labels, window_scores in predict_windows(
        model, lambda window: image[window], size, options, probabilities
    ):
        labels[window] = window_labels
        if scores is not None and window_scores is not None:
            scores[window] = window_scores
    return labels, scores


def predict_windows(
    model: Segmenter,
    read: Callable[[Window], Any],
    size: Sequence[int],
    options: PredictOptions,
    probabilities: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[Window, Tensor, Tensor | None]]:
    """Yield (window, labels (*window) uint8, probabilities (*window, K) float16 or None) of an image, on the CPU.

    The windows cover the image once, in raster order, see :func:`unet.inference.tiling.sliding_window`. With evaluation
    transforms the image is read at once and returned as one window.

    Args:
        read: window -> pixels (*window, C) as stored, a numpy array or a tensor.
        warn: called with a message after the last window for each reason why the labels are doubtful.

    Raises:
        UserError: an option is invalid, or the network does not support the channels or the values of the image. After
            the last window: the labels are doubtful and ``options.strict`` is True.
    """
    options.check(model.net.spatial_dims)
    check_threshold(options.threshold, model.classes)
    converter = InputConverter(model.description)

    def read_batch(window: Window) -> Tensor:
        return converter.convert(read(window)).movedim(-1, 0)[None]

    full, undo = tuple(slice(0, n) for n in size), None
    if options.transforms and model.eval_transforms:
        image, undo = apply_eval_transforms(read_batch(full), model.eval_transforms)
        size = image.shape[2:]

    def read_tile(window: Window) -> Tensor:
        tile = read_batch(window) if undo is None else image[:, :, *window]
        return (tile if tile.dtype == torch.uint8 else tile.float()).to(model.log_weights.device)

    net, tiles = with_precision_and_tta(model, options), plan_tiles(model, size, options)
    windows = sliding_window(net, read_tile, tiles, options.batch)
    if undo is not None:
        windows = [(full, stitch(windows, size, "cpu"))]
    for window, logits in windows:
        logits = logits / options.temperature if options.temperature != 1 else logits
        labels, scores = decode_logits(logits, undo or (lambda maps: maps), probabilities, options.threshold)
        yield window, labels.cpu(), None if scores is None else scores.cpu()
    report_doubts(converter.doubts(), options, warn)


def report_doubts(doubts: Sequence[str], options: PredictOptions, warn: Callable[[str], None]) -> None:
    """Warn of every reason why the labels are doubtful. Raises UserError if ``options.strict`` is True."""
    if doubts and options.strict:
        raise UserError(f"{'; '.join(doubts)} (refused because of strict=true)")
    for message in doubts:
        warn(message)


def plan_tiles(model: Segmenter, size: Sequence[int], options: PredictOptions) -> Tiling:
    """Return the tiles of an image of ``size``."""
    tile, stride = tile_size(model, options), model.net.total_stride
    if all(m >= n for m, n in zip(tile, size, strict=True)):
        return place_tiles(size, size, [0] * len(size), stride)
    return place_tiles(size, tile, tile_overlap(model, options), stride)


def tile_size(model: Segmenter, options: PredictOptions) -> Sequence[int]:
    """Return the size of a tile along each axis, in pixels."""
    dims = model.net.spatial_dims
    return options.tile or model.description.get("eval_tile") or [DEFAULT_TILE[dims]] * dims


def tile_overlap(model: Segmenter, options: PredictOptions) -> list[int]:
    """Return the minimum overlap of adjacent tiles along each axis, in pixels."""
    tile = tile_size(model, options)
    if options.overlap is not None:
        return overlap_samples(tile, options.overlap)
    if options.tile is None and model.description.get("eval_tile"):
        return overlap_samples(tile, model.description["eval_overlap"])
    return default_overlap(tile, model.field)


def default_overlap(tile: Sequence[int], field: Sequence[float]) -> list[int]:
    """Return the default overlap along each axis, in pixels: the receptive field, at most half a tile.

    A quarter of a tile if the field is unlimited (a context module that pools the whole image, instance norm).
    """
    return [m // 4 if math.isinf(n) else min(int(n), m // 2) for m, n in zip(tile, field, strict=True)]


def with_precision_and_tta(model: Segmenter, options: PredictOptions) -> Network:
    """Return the forward function (B, C, *S) -> (B, K, *S) with the precision and the augmentation of ``options``."""
    device = model.log_weights.device.type
    bf16 = options.precision == "bf16-mixed" or (options.precision == "auto" and native_bf16(device))

    def forward(image: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the bottleneck is")  # advice for training
            logits = model(image)
        if image.is_floating_point() and (missing := image.isnan().all(1, keepdim=True)).any():
            logits = logits.float().masked_fill(missing, torch.nan)  # averages over tiles and flips keep it
        return logits

    return with_tta(forward, model.net.spatial_dims) if options.tta else forward


def check_threshold(threshold: float | None, classes: Sequence[str]) -> None:
    """Raise UserError for a threshold with a network that does not have two classes."""
    if threshold is not None and len(classes) != 2:
        raise UserError(
            f"threshold={threshold:g}: requires a network with two classes; this one has {len(classes)}: "
            f"{', '.join(classes)}; use probabilities=true and choose the labels from them"
        )


def decode_logits(
    logits: Tensor, undo: Callable[[Tensor], Tensor], probabilities: bool, threshold: float | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return labels (*S) uint8 and probabilities (*S, K) float16 of logits (1, K, *S').

    The label is the class of the largest logit; with a threshold, 1 where the probability of class 1 exceeds it. The
    latter is compared in float32, before it is rounded to float16. Where the logits are NaN, because the image has no
    data, the label is ``IGNORE_INDEX`` and the probabilities are NaN. ``undo`` resizes one class at a time: all classes
    at the size of the image may not fit into memory.
    """
    scores = logits.softmax(1) if probabilities or threshold is not None else None
    if scores is not None and threshold is not None:
        maximum = undo(scores[:, 1:2])[0, 0]
        labels = (maximum > threshold).to(torch.uint8)
    else:
        maximum = undo(logits[:, :1])[0, 0]
        labels = torch.zeros_like(maximum, dtype=torch.uint8)
        for k in range(1, logits.shape[1]):
            class_logits = undo(logits[:, k : k + 1])[0, 0]
            labels.masked_fill_(class_logits > maximum, k)
            maximum = torch.maximum(maximum, class_logits)  # NaN where one of them is
    labels.masked_fill_(maximum.isnan(), IGNORE_INDEX)
    if scores is None or not probabilities:
        return labels, None
    return labels, torch.stack([undo(scores[:, k : k + 1])[0, 0].half() for k in range(logits.shape[1])], -1)
