"""What the machine can do: the rate of the fastest of the network's own convolutions."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.benchmark.baselines import Problem
from unet.benchmark.timing import measure


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution of the network's decoder or encoder, the yardstick of what the machine can do."""

    in_channels: int
    out_channels: int
    size: tuple[int, int]

    def flops(self, batch: int) -> int:
        """Floating-point operations of one call on ``batch`` images; a multiply-add counts two."""
        return 2 * 9 * self.in_channels * self.out_channels * math.prod(self.size) * batch

    def call(self, problem: Problem, dtype: torch.dtype) -> Callable[[], Tensor]:
        place: dict[str, Any] = {"device": problem.device, "dtype": dtype}
        image = torch.randn(problem.batch, self.in_channels, *self.size, **place)
        weight = torch.randn(self.out_channels, self.in_channels, 3, 3, **place)
        image, weight = (x.to(memory_format=torch.channels_last) for x in (image, weight))

        def convolve() -> Tensor:
            with torch.inference_mode():
                return F.conv2d(image, weight, padding=1)

        return convolve

    def __str__(self) -> str:
        return f"{self.in_channels} to {self.out_channels} channels at {self.size[0]}x{self.size[1]}"


def network_convolutions(problem: Problem) -> list[Convolution]:
    """The two kinds of 3x3 convolution at every level: width to width, and the decoder's twice the width to width."""
    levels = range(problem.depth + 1)
    return [
        Convolution(
            factor * problem.width * 2**level,
            problem.width * 2**level,
            (max(1, problem.size[0] >> level), max(1, problem.size[1] >> level)),
        )
        for level, factor in itertools.product(levels, (1, 2))
    ]


def fastest_convolution(problem: Problem, dtype: torch.dtype) -> Convolution:
    """The network's 3x3 convolution that reaches the most GFLOP/s, forward, channels_last, in ``dtype``."""

    def rate(convolution: Convolution) -> float:
        key = str(convolution)
        timings = measure({key: convolution.call(problem, dtype)}, rounds=3)
        return convolution.flops(problem.batch) / min(timings[key])

    return max(network_convolutions(problem), key=rate)
