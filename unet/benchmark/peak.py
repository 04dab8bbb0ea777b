"""Measure the convolution peak of a machine: the rate of the fastest of the network's own convolutions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.benchmark.baselines import Workload
from unet.benchmark.timing import measure


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution of the network's encoder or decoder."""

    in_channels: int
    out_channels: int
    size: tuple[int, int]

    def flops(self, batch: int) -> int:
        """Return the floating-point operations on ``batch`` images; a multiply-add counts as two."""
        return 2 * 9 * self.in_channels * self.out_channels * math.prod(self.size) * batch

    def call(self, workload: Workload, dtype: torch.dtype) -> Callable[[], Tensor]:
        """Return a function that runs the convolution in channels_last."""
        options: dict[str, Any] = {"device": workload.device, "dtype": dtype}
        image = torch.randn(workload.batch, self.in_channels, *self.size, **options)
        weight = torch.randn(self.out_channels, self.in_channels, 3, 3, **options)
        image, weight = (x.to(memory_format=torch.channels_last) for x in (image, weight))

        def convolve() -> Tensor:
            with torch.inference_mode():
                return F.conv2d(image, weight, padding=1)

        return convolve

    def __str__(self) -> str:
        return f"{self.in_channels} to {self.out_channels} channels at {self.size[0]}x{self.size[1]}"


def fastest_convolution(workload: Workload, dtype: torch.dtype) -> Convolution:
    """Return the convolution of the network with the most GFLOP/s, forward, channels_last, in ``dtype``."""
    (height, width), convolutions = workload.size, []
    for level in range(workload.depth + 1):
        channels, size = workload.width << level, (max(1, height >> level), max(1, width >> level))
        convolutions += [Convolution(channels, channels, size), Convolution(2 * channels, channels, size)]

    def rate(convolution: Convolution) -> float:
        timings = measure({0: convolution.call(workload, dtype)}, rounds=3)
        return convolution.flops(workload.batch) / min(timings[0])

    return max(convolutions, key=rate)
