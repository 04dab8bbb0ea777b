"""A trained network as it is exported: stored pixels in, probabilities or labels out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError, did_you_mean
from unet.inference.segmenter import Segmenter

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
"""Types of stored images; see :func:`unet.io.image_formats.read_image`."""
AXES = {1: "L", 2: "H W", 3: "D H W"}
BLOCK = 8
"""Samples along an axis of the constant patches of :meth:`InputSpec.random_image`."""


class Deployed(nn.Module):
    """image as stored (B, C, *S) -> probabilities (B, K, *S) in float32, or labels (B, *S) in uint8."""

    def __init__(self, segmenter: Segmenter, labels: bool = False):
        super().__init__()
        self.segmenter, self.labels = segmenter, labels
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        logits = self.segmenter(image).float()
        return logits.argmax(1).to(torch.uint8) if self.labels else logits.softmax(1)


@dataclass(frozen=True)
class InputSpec:
    """The images a network takes.

    Attributes:
        dtype: of the stored training images, a key of :data:`DTYPES`.
        mean, std: of the training images, per channel, in their own units.
        value_range: the smallest and the largest value; None if neither the type nor the checkpoint determines it.
        total_stride: along every axis.
        min_size: the smallest size that works along every axis.
    """

    dtype: str
    mean: list[float]
    std: list[float]
    value_range: tuple[float, float] | None
    total_stride: tuple[int, ...]
    min_size: tuple[int, ...]

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def axes(self) -> str:
        return AXES[len(self.total_stride)]

    def random_image(self, batch: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
        """Return constant patches under noise (B, C, *size) with the mean and deviation of the training images."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(batch, self.channels, *(-(-n // BLOCK) for n in size), generator=generator)
        noise = torch.randn(batch, self.channels, *size, generator=generator)
        mean, std = (torch.tensor(value).view(1, -1, *[1] * len(size)) for value in (self.mean, self.std))
        image = mean + std * (0.95 * F.interpolate(coarse, size) + 0.3 * noise)
        image = image if self.value_range is None else image.clamp(*self.value_range)
        return (image if self.dtype == "float32" else image.round()).to(DTYPES[self.dtype])


def input_spec(segmenter: Segmenter, dtype: str | None = None, single: bool = True) -> InputSpec:
    """Return what images a network takes.

    Args:
        segmenter: the network.
        dtype: of its images, for a checkpoint written by an older version, which lacks it.
        single: whether the exported format supports a bottleneck of a single sample along an axis.

    Raises:
        UserError: an unknown type, one that contradicts the checkpoint, or none at all.
    """
    description = segmenter.description
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: unknown {dtype!r}{did_you_mean(str(dtype), DTYPES)} (valid: {', '.join(DTYPES)})")
    trained = description.get("dtype")
    if None not in (dtype, trained) and dtype != trained:
        raise UserError(f"dtype={dtype}: the network was trained on {trained} images; leave the key out")
    dtype = trained or dtype
    if dtype is None:
        raise UserError(
            f"the checkpoint was written by an older version and lacks the dtype of its training images; add "
            f"dtype=uint8 if they had 8 bits a channel, else one of {', '.join(DTYPES)}"
        )
    limits = None if dtype == "float32" else torch.iinfo(DTYPES[dtype])
    value_range = description.get("range") if limits is None else (limits.min, limits.max)
    stride = tuple(segmenter.net.total_stride)
    # Instance norm cannot normalise a single value either.
    min_size = stride if single and segmenter.net.norm != "instance" else tuple(n + 1 for n in stride)
    return InputSpec(
        dtype,
        description["mean"],
        description["std"],
        value_range and (value_range[0], value_range[1]),
        stride,
        min_size,
    )
