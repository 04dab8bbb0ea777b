"""Measure the convolution peak of a machine: the rate of the fastest of the network's own convolutions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.benchmark.baselines import IN_CHANNELS, Workload
from unet.benchmark.timing import Timings


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


def own_convolutions(workload: Workload) -> list[Convolution]:
    """Return the different 3x3 convolutions of stride 1 in this project's network, in the order they are run."""
    with torch.device("meta"):
        network, image = workload.network(), torch.empty(workload.batch, IN_CHANNELS, *workload.size)
    convolutions: dict[Convolution, None] = {}

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride) == ((3, 3), (1, 1)):
            height, width = output.shape[2:]
            convolutions[Convolution(module.in_channels, module.out_channels, (height, width))] = None

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(record)
    network(image)
    return list(convolutions)


def peak_calls(workload: Workload, dtype: torch.dtype) -> dict[Any, Callable[[], Tensor]]:
    """Return the calls of the network's convolutions by dtype and convolution, to be timed in the same rounds."""
    return {(dtype, convolution): convolution.call(workload, dtype) for convolution in own_convolutions(workload)}


def fastest(timings: Timings[Any], dtype: torch.dtype) -> Convolution:
    """Return the convolution with the most GFLOP/s in its best round, of those timed in ``dtype``.

    Chosen by their medians, the peak would be too high on a busy machine: the best of several noisy medians.
    """
    candidates = [key for key in timings if isinstance(key, tuple) and key[0] == dtype]
    return max(candidates, key=lambda key: key[1].flops(1) / min(timings[key]))[1]
