"""Compare the speed of several networks in the same rounds: ms, ratios, and fractions of the convolution peak."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unet.benchmark.baselines import IN_CHANNELS, REFERENCE, BenchmarkNetwork, Workload
from unet.benchmark.peak import Convolution, fastest, peak_calls
from unet.benchmark.tensor_format import DTYPES
from unet.benchmark.timing import Timings, measure, median_ratio
from unet.network.geometry import count_flops, count_parameters


@dataclass(frozen=True)
class Speed:
    """Median time in ms, its ratio to this project's, and the fraction of the convolution peak in its own dtype."""

    ms: float
    ratio: float
    gflops_per_s: float
    peak_fraction: float
    rounds_ms: list[float]


@dataclass(frozen=True)
class NetworkSpeed:
    """The speed of a network; ``gflops`` of a forward pass on one image, three times as many in training."""

    name: str
    format: str
    parameters: int
    gflops: float
    training: Speed
    inference: Speed


@dataclass(frozen=True)
class Peak:
    """The convolution peak in one dtype: the convolution and its median GFLOP/s."""

    dtype: str
    convolution: str
    gflops_per_s: float


def compare_networks(
    workload: Workload, networks: Sequence[BenchmarkNetwork], rounds: int
) -> tuple[list[NetworkSpeed], list[Peak]]:
    """Time all networks, and the network's own convolutions in each dtype, in the same rounds."""
    dtypes = sorted({network.format.dtype for network in networks}, key=str)
    image, target = workload.image(), workload.target()
    calls: dict[Any, Callable[[], object]] = {}
    for network in networks:
        calls[network.name, "inference"] = network.inference(image)
        calls[network.name, "training"] = network.training_step(image, target)
    for dtype in dtypes:
        calls |= peak_calls(workload, dtype)
    timings = measure(calls, rounds, verbose=True)
    convolutions = {dtype: fastest(timings, dtype) for dtype in dtypes}
    speeds = [network_speed(network, workload, timings, convolutions[network.format.dtype]) for network in networks]
    peaks = [
        Peak(DTYPES[dtype], str(c), gflops_per_s(c.flops(workload.batch), timings[dtype, c]))
        for dtype, c in convolutions.items()
    ]
    return speeds, peaks


def network_speed(
    network: BenchmarkNetwork, workload: Workload, timings: Timings[Any], peak: Convolution
) -> NetworkSpeed:
    """Return the speed of one network from the timings of all."""
    forward = count_flops(network.network, (workload.batch, IN_CHANNELS, *workload.size))
    peak_ms = timings[network.format.dtype, peak]

    def speed(mode: str, flops: float) -> Speed:
        own_ms = timings[network.name, mode]
        return Speed(
            ms=statistics.median(own_ms),
            ratio=median_ratio(own_ms, timings[REFERENCE, mode]),
            gflops_per_s=gflops_per_s(flops, own_ms),
            peak_fraction=median_ratio(peak_ms, own_ms) * flops / peak.flops(workload.batch),
            rounds_ms=own_ms,
        )

    gflops, num_parameters = forward / workload.batch / 1e9, count_parameters(network.network)
    training, inference = speed("training", 3 * forward), speed("inference", forward)
    return NetworkSpeed(network.name, str(network.format), num_parameters, gflops, training, inference)


def gflops_per_s(flops: float, timings_ms: Sequence[float]) -> float:
    """Return the GFLOP/s of a call of ``flops`` at its median time."""
    return flops / statistics.median(timings_ms) / 1e6
