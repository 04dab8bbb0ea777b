"""A trained network as it is handed over: pixels as stored in, probabilities or labels out."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.errors import UserError, did_you_mean
from unet.segmenter import Segmenter

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
"""What an image may be stored as; see :func:`unet.data.formats.read_image`."""
AXES = {1: "L", 2: "H W", 3: "D H W"}
BLOCK = 8
"""Samples along an axis of the even patches of :meth:`Given.sample`."""


class Deployed(nn.Module):
    """image as stored (B, C, *S) -> probabilities (B, K, *S) in float32, or labels (B, *S) in uint8.

    Args:
        segmenter: the network with its normalisation and its log weights.
        labels: labels, not probabilities.
        bf16: compute in bfloat16 where training in ``bf16-mixed`` does; the weights stay float32.
    """

    def __init__(self, segmenter: Segmenter, labels: bool = False, bf16: bool = False):
        super().__init__()
        self.segmenter, self.labels, self.bf16 = segmenter, labels, bf16
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            logits = self.segmenter(image).float()
        return logits.argmax(1).to(torch.uint8) if self.labels else logits.softmax(1)


@dataclass(frozen=True)
class Given:
    """The images a network takes.

    Attributes:
        dtype: a key of :data:`DTYPES`, what the training images were stored as.
        mean, std: of the training images, per channel, in their own units.
        span: the least and the largest value; None where neither the type nor the checkpoint says.
        stride: the total stride along every axis.
        smallest: the smallest size that works, along every axis.
    """

    dtype: str
    mean: list[float]
    std: list[float]
    span: tuple[float, float] | None
    stride: tuple[int, ...]
    smallest: tuple[int, ...]

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def layout(self) -> str:
        return f"B C {AXES[len(self.stride)]}"

    def sample(self, batch: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
        """An image (B, C, *size) of even patches under noise, with the training images' mean and deviation."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(batch, self.channels, *(-(-n // BLOCK) for n in size), generator=generator)
        noise = torch.randn(batch, self.channels, *size, generator=generator)
        mean, std = (torch.tensor(value).view(1, -1, *[1] * len(size)) for value in (self.mean, self.std))
        image = mean + std * (0.95 * F.interpolate(coarse, size) + 0.3 * noise)
        image = image if self.span is None else image.clamp(*self.span)
        return (image if self.dtype == "float32" else image.round()).to(DTYPES[self.dtype])


def given(segmenter: Segmenter, dtype: str | None = None, single: bool = True) -> Given:
    """What the network takes.

    Args:
        segmenter: the network.
        dtype: of its images, where the checkpoint, an old one, does not say.
        single: whether a bottleneck of a single sample along an axis is served.

    Raises:
        UserError: a type that is none, contradicts the checkpoint, or is not said at all.
    """
    said: Mapping[str, Any] = segmenter.description
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: unknown {dtype!r}{did_you_mean(str(dtype), DTYPES)} (valid: {', '.join(DTYPES)})")
    if dtype is not None and said.get("dtype", dtype) != dtype:
        raise UserError(f"dtype={dtype}: the network was trained on {said['dtype']} images; leave the key out")
    dtype = said.get("dtype", dtype)
    if dtype is None:
        raise UserError(
            f"the checkpoint does not say how its training images were stored (newer ones do); add dtype=uint8 if they "
            f"had 8 bits a channel, else one of {', '.join(DTYPES)}"
        )
    whole = None if dtype == "float32" else torch.iinfo(DTYPES[dtype])
    span = said.get("range") if whole is None else (whole.min, whole.max)
    stride = tuple(segmenter.net.total_stride)
    # Instance norm cannot normalise a single value either.
    least = stride if single and segmenter.net.norm != "instance" else tuple(n + 1 for n in stride)
    return Given(dtype, said["mean"], said["std"], None if span is None else (span[0], span[1]), stride, least)
