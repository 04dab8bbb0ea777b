"""A trained network in the form that is exported: pixels in, probabilities or labels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError, did_you_mean
from unet.inference.image_values import trained_mode
from unet.inference.segmenter import Segmenter
from unet.network.geometry import times

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
"""Dtypes of images on disk; see :func:`unet.io.image_reader.ImageReader`."""
AXES = {1: "L", 2: "H W", 3: "D H W"}
BLOCK = 8
"""Side of the constant patches of :meth:`InputSpec.random_image`."""


class DeployedModel(nn.Module):
    """A network with normalization and softmax or argmax.

    Shapes: image as on disk (B, C, *S) -> probabilities (B, K, *S) in float32, or labels (B, *S) in uint8.
    """

    def __init__(self, segmenter: Segmenter, labels: bool = False):
        super().__init__()
        self.segmenter, self.labels = segmenter, labels
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        logits = self.segmenter(image).float()
        return logits.argmax(1).to(torch.uint8) if self.labels else logits.softmax(1)


@dataclass(frozen=True)
class InputSpec:
    """The specification of a network's input images.

    Attributes:
        dtype: dtype of the training images on disk, a key of :data:`DTYPES`.
        mean, std: statistics of the training images, per channel, in their own units.
        value_range: smallest and largest value; None if neither the dtype nor the checkpoint determines it.
        total_stride: total stride along every axis.
        min_size: smallest supported size along every axis.
        size: the only supported size, with a batch of one image; None: any size and batch.
        mode: the Pillow mode to convert an image file to before it is passed to the network; None: as stored.
    """

    dtype: str
    mean: list[float]
    std: list[float]
    value_range: tuple[float, float] | None
    total_stride: tuple[int, ...]
    min_size: tuple[int, ...]
    size: tuple[int, ...] | None = None
    mode: str | None = None

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.mean)

    @property
    def axes(self) -> str:
        """Return the names of the spatial axes."""
        return AXES[len(self.total_stride)]

    def to_json(self) -> dict[str, Any]:
        """Return the entries of ``bundle.json``."""
        return {
            "layout": f"B C {self.axes}",
            "dtype": self.dtype,
            "channels": self.channels,
            "range": None if self.value_range is None else list(self.value_range),
            "mean": self.mean,
            "std": self.std,
            "mode": self.mode,
            "size": self.size and list(self.size),
            "smallest": list(self.min_size),
            "total_stride": list(self.total_stride),
            "normalised_inside": True,
        }

    def random_image(self, batch: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
        """Return constant patches under noise (B, C, *size) with the mean and deviation of the training images."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(batch, self.channels, *(-(-n // BLOCK) for n in size), generator=generator)
        noise = torch.randn(batch, self.channels, *size, generator=generator)
        mean, std = (torch.tensor(value).view(1, -1, *[1] * len(size)) for value in (self.mean, self.std))
        image = mean + std * (0.95 * F.interpolate(coarse, size) + 0.3 * noise)
        image = image if self.value_range is None else image.clamp(*self.value_range)
        return (image if self.dtype == "float32" else image.round()).to(DTYPES[self.dtype])


def input_spec(
    segmenter: Segmenter, dtype: str | None = None, allows_size_one: bool = True, size: Sequence[int] | None = None
) -> InputSpec:
    """Return the specification of a network's input; ``dtype`` is for a checkpoint of an older version, which lacks it.

    ``allows_size_one``: whether the format supports a bottleneck of size 1 along an axis. ``size``: the only size that
    the exported network supports.

    Raises:
        UserError: an unknown dtype, one that contradicts the checkpoint, or none at all; an unsupported size.
    """
    description = segmenter.description
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: unknown {dtype!r}{did_you_mean(str(dtype), DTYPES)} (valid: {', '.join(DTYPES)})")
    train_dtype = description.get("dtype")
    if None not in (dtype, train_dtype) and dtype != train_dtype:
        raise UserError(f"dtype={dtype}: the network was trained on {train_dtype} images; leave dtype out")
    dtype = train_dtype or dtype
    if dtype is None:
        raise UserError(
            f"the checkpoint was written by an older version and lacks the dtype of its training images; add "
            f"dtype=uint8 for images of 8 bits a channel, else one of {', '.join(DTYPES)}"
        )
    info = None if dtype == "float32" else torch.iinfo(DTYPES[dtype])
    value_range = description.get("range") if info is None else (info.min, info.max)
    stride = tuple(segmenter.net.total_stride)
    # Instance norm cannot normalise a single value.
    min_size = stride if allows_size_one and segmenter.net.norm != "instance" else tuple(n + 1 for n in stride)
    limits = value_range and (value_range[0], value_range[1])
    channels = len(description["mean"])
    mode = trained_mode(description) or ("RGB" if channels == 3 and dtype == "uint8" else None)
    fixed = None if size is None else check_size(size, stride, min_size)
    return InputSpec(dtype, description["mean"], description["std"], limits, stride, min_size, fixed, mode)


def check_size(size: Any, stride: Sequence[int], min_size: Sequence[int]) -> tuple[int, ...]:
    """Return a fixed size as a tuple; raise UserError unless the network supports it without padding."""
    values = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else []
    valid = len(values) == len(stride) and all(type(n) is int for n in values)
    if not valid or any(n < m or n % r for n, m, r in zip(values, min_size, stride, strict=True)):
        example = f"[{','.join(str(16 * n) for n in stride)}]"
        raise UserError(
            f"size: expected {len(stride)} multiples of the total stride ({times(stride)}), at least "
            f"{times(min_size)}, such as size={example}, found {size}"
        )
    return tuple(values)
