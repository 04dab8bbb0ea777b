"""A trained network applied to one image of any size, in memory or read window by window."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.geometry import times
from unet.hardware import native_bf16
from unet.inference import Network, Read, Tiling, Window, blended, check_tile, gathered, overlap_samples, tiling
from unet.preparation import prepared
from unet.symmetry import symmetric

if TYPE_CHECKING:
    from unet.segmenter import Segmenter

TILE = {1: 2**18, 2: 1024, 3: 96}
"""Samples of a tile along each axis, by the number of axes: about a million. What is no larger goes through whole."""
MOST = 0.5
"""Of a tile: no overlap is larger unless it is told, however far the network looks."""
UNLIMITED = 0.25
"""The overlap where every logit depends on the whole image, which no overlap gives it."""
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class How:
    """How an image is predicted.

    Attributes:
        tile: size along each axis; None: that of the training's evaluation (``data.eval_tile``), or :data:`TILE`.
        overlap: share of a tile that neighbours have in common; None: ``data.eval_overlap`` where the evaluation's
            tile is taken, else what the receptive field asks, see :func:`field_overlap`.
        tta: average over the mirrorings (and quarter turns) of the image.
        batch: tiles that go through the network together.
        precision: ``auto`` (bfloat16 where the hardware has it natively), ``32-true`` or ``bf16-mixed``.
        transforms: whether what evaluation does to a picture first (``data.eval_transforms``) is done.
    """

    tile: Sequence[int] | None = None
    overlap: float | None = None
    tta: bool = False
    batch: int = 1
    precision: str = "auto"
    transforms: bool = True

    def check(self, spatial_dims: int) -> None:
        """Raises UserError naming the value that makes no sense."""
        check_tile(self.tile, 0.0 if self.overlap is None else self.overlap, spatial_dims, keys="")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise UserError(f"batch: expected an integer of at least 1, found {self.batch!r}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, found {self.precision!r}")


def label(model: Segmenter, image: Any, how: How, probabilities: bool = False) -> tuple[Tensor, Tensor | None]:
    """An image in memory -> labels (*S) uint8 and, where they are asked for, probabilities (*S, K) float16.

    Args:
        model: the network.
        image: (*S) or (*S, C) as stored, an array of numpy or a tensor.
        how: see there.

    Raises:
        UserError: a shape or a value that the network cannot be given.
    """
    spatial_dims = model.net.spatial_dims
    how.check(spatial_dims)
    stored = as_tensor(image)
    if stored.ndim not in (spatial_dims, spatial_dims + 1) or 0 in stored.shape:
        raise UserError(
            f"an image of {times(stored.shape)}: expected {spatial_dims} axes, or one more for channels, last, none of "
            f"them empty"
        )
    stored = stored[..., None] if stored.ndim == spatial_dims else stored
    whole = channels_fit(stored, model.net.in_channels).movedim(-1, 0)[None]
    whole, undo = prepared(whole, model.steps if how.transforms else ())
    size = whole.shape[2:]
    logits = gathered(parts(model, lambda window: whole[:, :, *window], size, how), size, "cpu")
    labels, best = torch.zeros(stored.shape[:-1], dtype=torch.uint8), undo(logits[:, :1])[0, 0]
    for k in range(1, logits.shape[1]):  # class by class: all of them at the image's size may be too much
        other = undo(logits[:, k : k + 1])[0, 0]
        labels[other > best] = k
        best = torch.maximum(best, other)
    if not probabilities:
        return labels, None
    shares = logits.softmax(1)
    return labels, torch.stack([undo(shares[:, k : k + 1])[0, 0].half() for k in range(shares.shape[1])], -1)


def parts(model: Segmenter, read: Read, size: Sequence[int], how: How) -> Iterator[tuple[Window, Tensor]]:
    """(window, logits (1, K, *window)) of parts of an image that together make it; see :func:`unet.inference.blended`.

    ``read`` gives a window (1, C, *window), as it is stored.
    """
    device = model.log_weights.device

    def taken(window: Window) -> Tensor:
        image = read(window)
        if image.is_floating_point() and not image.isfinite().all():
            raise UserError("the image holds NaN or infinite values; replace them")
        return image.to(device)

    yield from blended(network(model, how), taken, tiles(model, size, how), how.batch)


def network(model: Segmenter, how: How) -> Network:
    """The model in the precision, and from the sides, that ``how`` says."""
    kind = model.log_weights.device.type
    narrow = how.precision == "bf16-mixed" or (how.precision == "auto" and native_bf16(kind))

    def forward(image: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=narrow), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the bottleneck is")  # advice to who trains
            return model(image)

    return symmetric(forward, model.net.spatial_dims) if how.tta else forward


def tiles(model: Segmenter, size: Sequence[int], how: How) -> Tiling:
    """The tiles of an image of ``size``."""
    tile, stride = tile_of(model, how), model.net.total_stride
    if all(m >= n for m, n in zip(tile, size, strict=True)):
        return tiling(size, size, [0] * len(size), stride)
    return tiling(size, tile, overlap_of(model, how), stride)


def tile_of(model: Segmenter, how: How) -> Sequence[int]:
    """The size of a tile along each axis."""
    dims = model.net.spatial_dims
    return how.tile or model.description.get("eval_tile") or [TILE[dims]] * dims


def overlap_of(model: Segmenter, how: How) -> list[int]:
    """Samples that neighbouring tiles share at least, along each axis."""
    tile = tile_of(model, how)
    if how.overlap is not None:
        return overlap_samples(tile, how.overlap)
    if how.tile is None and model.description.get("eval_tile"):
        return overlap_samples(tile, model.description["eval_overlap"])
    return field_overlap(tile, model.field)


def field_overlap(tile: Sequence[int], field: Sequence[float]) -> list[int]:
    """The receptive field along each axis, but at most half a tile: every sample is half the field from some rim.

    Where the field has no end (a context of the whole image, instance norm), a quarter of a tile.
    """
    return [
        int(m * UNLIMITED) if math.isinf(n) else min(int(n), int(m * MOST)) for m, n in zip(tile, field, strict=True)
    ]


def as_tensor(image: Any) -> Tensor:
    """An array in the machine's byte order as a tensor; nothing but numbers."""
    if isinstance(image, Tensor):
        return image
    if getattr(getattr(image, "dtype", None), "kind", "") not in tuple("buif"):
        raise UserError(f"an image of {getattr(image, 'dtype', type(image).__name__)}: expected an array of numbers")
    kind, fixed = image.dtype.newbyteorder("="), not image.flags.writeable  # of which torch would warn
    return torch.as_tensor(image.astype(kind, order="C", copy=fixed))


def channels_fit(image: Any, wanted: int) -> Any:
    """(*S, C) -> (*S, wanted), of numpy or torch: alpha is dropped, grey repeated, anything else refused."""
    found = image.shape[-1]
    if wanted in (1, 3) and found == wanted + 1:
        return image[..., :wanted]
    if wanted == 3 and found in (1, 2):
        return image[..., [0, 0, 0]]
    if found != wanted:
        advice = "; convert it to grey" if wanted == 1 and found in (3, 4) else ""
        raise UserError(f"{found} channels, but the network was trained on {wanted}{advice}")
    return image
