"""Apply a trained network to one image of any size, in memory or read in windows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.hardware import native_bf16
from unet.inference.preprocessing import apply_eval_transforms
from unet.inference.tiling import Network, Tiling, Window, check_tile, overlap_samples, sliding_window, stitch, tiling
from unet.inference.tta import with_tta
from unet.network.geometry import times

if TYPE_CHECKING:
    from unet.inference.segmenter import Segmenter

DEFAULT_TILE = {1: 2**18, 2: 1024, 3: 96}
"""Samples of a tile along each axis, by the number of axes: about a million."""
MAX_OVERLAP = 0.5
"""The largest default overlap, as a fraction of a tile."""
FALLBACK_OVERLAP = 0.25
"""The default overlap, as a fraction of a tile, if the receptive field is the whole image."""
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class PredictOptions:
    """The options of a prediction, see :meth:`unet.inference.segmenter.Segmenter.predict`."""

    tile: Sequence[int] | None = None
    overlap: float | None = None
    tta: bool = False
    batch: int = 1
    precision: str = "auto"
    transforms: bool = True

    def check(self, spatial_dims: int) -> None:
        """Raise UserError, naming the option, for an invalid value."""
        check_tile(self.tile, 0.0 if self.overlap is None else self.overlap, spatial_dims, keys="")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise UserError(f"batch: expected an integer of at least 1, found {self.batch!r}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, found {self.precision!r}")


def predict_array(
    model: Segmenter, image: Any, options: PredictOptions, probabilities: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the labels (*S) uint8 of an image in memory and, if requested, its probabilities (*S, K) float16.

    Args:
        model: the network.
        image: (*S) or (*S, C) as stored, a numpy array or a tensor.
        options: see :class:`PredictOptions`.
        probabilities: whether probabilities are returned as well.

    Raises:
        UserError: the network cannot take an image of this shape, or with these values.
    """
    spatial_dims = model.net.spatial_dims
    image = as_tensor(image)
    if image.ndim not in (spatial_dims, spatial_dims + 1) or 0 in image.shape:
        raise UserError(
            f"an image of {times(image.shape)}: expected {spatial_dims} axes, or one more for channels, last, none of "
            f"them empty"
        )
    image = image[..., None] if image.ndim == spatial_dims else image
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

    The windows cover the image once, in raster order, see :func:`unet.inference.tiling.sliding_window`. Evaluation transforms
    need the whole image: it is then read at once and returned as one window.

    Args:
        model: the network.
        read: returns a window of the image (*window, C) as stored, a numpy array or a tensor.
        size: of the image, along each axis.
        options: see :class:`PredictOptions`.
        probabilities: whether probabilities are computed.
        warn: receives a message after the last window if the image's values do not fit those of the training.

    Raises:
        UserError: the network cannot take an image of this shape, or with these values.
    """
    options.check(model.net.spatial_dims)
    values = ValueRange()

    def read_batch(window: Window) -> Tensor:
        pixels = channels_fit(as_tensor(read(window)), model.net.in_channels)
        values.add(pixels)
        return pixels.movedim(-1, 0)[None]

    full, undo = tuple(slice(0, n) for n in size), None
    if options.transforms and model.eval_transforms:
        image, undo = apply_eval_transforms(read_batch(full), model.eval_transforms)
        size = image.shape[2:]

    def read_tile(window: Window) -> Tensor:
        tile = read_batch(window) if undo is None else image[:, :, *window]
        return (tile if tile.dtype == torch.uint8 else tile.float()).to(model.log_weights.device)

    windows = sliding_window(
        with_precision_and_tta(model, options), read_tile, tiles(model, size, options), options.batch
    )
    if undo is not None:
        windows = [(full, stitch(windows, size, "cpu"))]
    for window, logits in windows:
        labels, scores = decode(logits, undo or (lambda maps: maps), probabilities)
        yield window, labels.cpu(), None if scores is None else scores.cpu()
    if message := values.mismatch(model.description):
        warn(message)


def decode(logits: Tensor, undo: Callable[[Tensor], Tensor], probabilities: bool) -> tuple[Tensor, Tensor | None]:
    """Return labels (*S) uint8 and probabilities (*S, K) float16 of logits (1, K, *S').

    Maps of single classes are resized by ``undo``: those of all classes at the image's size may not fit into memory.
    """
    best = undo(logits[:, :1])[0, 0]
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for k in range(1, logits.shape[1]):
        other = undo(logits[:, k : k + 1])[0, 0]
        labels.masked_fill_(other > best, k)
        best = torch.maximum(best, other)
    if not probabilities:
        return labels, None
    scores = logits.softmax(1)
    return labels, torch.stack([undo(scores[:, k : k + 1])[0, 0].half() for k in range(logits.shape[1])], -1)


class ValueRange:
    """The data type and the range of the values of an image that is read in windows."""

    def __init__(self) -> None:
        self.dtype, self.low, self.high = torch.float32, math.inf, -math.inf

    def add(self, pixels: Tensor) -> None:
        """Include a window. Raises UserError if it holds values that no network can take."""
        low, high = (value.item() for value in pixels.float().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError("the image holds NaN or infinite values; replace them")
        self.dtype, self.low, self.high = pixels.dtype, min(self.low, low), max(self.high, high)

    def mismatch(self, description: Mapping[str, Any]) -> str | None:
        """Return a warning if the values are unlikely to be in the units of the training images, else None.

        Dark images of the right type pass. A checkpoint that does not record its training's values gives no warning.
        """
        trained, (first, last) = description.get("dtype"), description.get("range") or (-math.inf, math.inf)
        if trained is None or not math.isfinite(last):
            return None
        unit = (self.dtype.is_floating_point or self.dtype == torch.bool) and self.low >= 0 and 0 < self.high <= 1
        if trained == "float32":
            wrong = (unit and last >= 255) or (last <= 1 and self.high >= 2)
        else:
            limit = torch.iinfo(getattr(torch, trained)).max
            narrow = self.dtype == torch.uint8 and last > 255
            wrong = (unit and last > 1) or self.low < 0 or self.high > limit or narrow
        if not wrong:
            return None
        return (
            f"the image holds {str(self.dtype).removeprefix('torch.')} values from {self.low:g} to {self.high:g}, but "
            f"the network was trained on {trained} images with values from {first:g} to {last:g}: the labels are "
            f"likely to be wrong; rescale the image to the units of the training images"
        )


def with_precision_and_tta(model: Segmenter, options: PredictOptions) -> Network:
    """Return the network function with the precision and the test-time augmentation of ``options``."""
    device = model.log_weights.device.type
    bf16 = options.precision == "bf16-mixed" or (options.precision == "auto" and native_bf16(device))

    def forward(image: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the bottleneck is")  # advice for training
            return model(image)

    return with_tta(forward, model.net.spatial_dims) if options.tta else forward


def tiles(model: Segmenter, size: Sequence[int], how: PredictOptions) -> Tiling:
    """Return the tiles of an image of ``size``."""
    tile, stride = tile_of(model, how), model.net.total_stride
    if all(m >= n for m, n in zip(tile, size, strict=True)):
        return tiling(size, size, [0] * len(size), stride)
    return tiling(size, tile, overlap_of(model, how), stride)


def tile_of(model: Segmenter, how: PredictOptions) -> Sequence[int]:
    """Return the size of a tile along each axis."""
    dims = model.net.spatial_dims
    return how.tile or model.description.get("eval_tile") or [DEFAULT_TILE[dims]] * dims


def overlap_of(model: Segmenter, how: PredictOptions) -> list[int]:
    """Return the samples that neighbouring tiles share at least, along each axis."""
    tile = tile_of(model, how)
    if how.overlap is not None:
        return overlap_samples(tile, how.overlap)
    if how.tile is None and model.description.get("eval_tile"):
        return overlap_samples(tile, model.description["eval_overlap"])
    return field_overlap(tile, model.field)


def field_overlap(tile: Sequence[int], field: Sequence[float]) -> list[int]:
    """Return the receptive field along each axis, but at most half a tile: the default overlap.

    A quarter of a tile if the field is unlimited (a context module that pools the whole image, instance norm).
    """
    return [
        int(m * FALLBACK_OVERLAP) if math.isinf(n) else min(int(n), int(m * MAX_OVERLAP))
        for m, n in zip(tile, field, strict=True)
    ]


def as_tensor(image: Any) -> Tensor:
    """Convert an array of numbers, in any byte order, to a tensor."""
    if isinstance(image, Tensor):
        return image
    if getattr(getattr(image, "dtype", None), "kind", "") not in tuple("buif"):
        raise UserError(f"an image of {getattr(image, 'dtype', type(image).__name__)}: expected an array of numbers")
    copy = not image.flags.writeable  # torch would warn
    return torch.as_tensor(image.astype(image.dtype.newbyteorder("="), order="C", copy=copy))


def channels_fit(image: Any, channels: int) -> Any:
    """Convert (*S, C) to (*S, channels): alpha is dropped and grey repeated, all else raises UserError."""
    n = image.shape[-1]
    if channels in (1, 3) and n == channels + 1:
        return image[..., :channels]
    if channels == 3 and n in (1, 2):
        return image[..., [0, 0, 0]]
    if n != channels:
        advice = "; convert it to grey" if channels == 1 and n in (3, 4) else ""
        raise UserError(f"{n} channels, but the network was trained on {channels}{advice}")
    return image
