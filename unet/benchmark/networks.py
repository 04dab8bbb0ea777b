"""The speed of several networks in the same rounds: ms, ratios, and fractions of the convolution peak."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unet.benchmark.baselines import IN_CHANNELS, REFERENCE, BenchmarkNetwork, Problem
from unet.benchmark.forms import DTYPES
from unet.benchmark.peak import Convolution, fastest_convolution
from unet.benchmark.steps import inference, training_step
from unet.benchmark.timing import Timings, measure, median_ratio
from unet.network.geometry import count_flops, count_parameters


@dataclass(frozen=True)
class Speed:
    """Median time in ms, its ratio to this project's, and the fraction of the convolution peak in its own dtype."""

    ms: float
    ratio: float
    gflops_per_s: float
    share_of_peak: float
    rounds_ms: list[float]


@dataclass(frozen=True)
class Row:
    """The speed of one network. ``gflops`` of one forward pass on one image; training counts as three."""

    name: str
    form: str
    parameters: int
    gflops: float
    training: Speed
    inference: Speed


@dataclass(frozen=True)
class Peak:
    """The convolution peak in one dtype: of which convolution, and the median GFLOP/s."""

    dtype: str
    convolution: str
    gflops_per_s: float


def compare_networks(
    problem: Problem, networks: Sequence[BenchmarkNetwork], rounds: int
) -> tuple[list[Row], list[Peak]]:
    """Time all networks, and the fastest convolution of each dtype, in the same rounds."""
    dtypes = sorted({network.form.dtype for network in networks}, key=str)
    peak_convolutions = {dtype: fastest_convolution(problem, dtype) for dtype in dtypes}
    image, target = problem.image(), problem.target()
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for network in networks:
        calls[network.name, "inference"] = inference(network, image)
        calls[network.name, "training"] = training_step(network, image, target)
    for dtype, convolution in peak_convolutions.items():
        calls[DTYPES[dtype], "peak"] = convolution.call(problem, dtype)
    timings = measure(calls, rounds, say=True)
    rows = [measure_row(network, problem, timings, peak_convolutions[network.form.dtype]) for network in networks]
    peaks = [
        Peak(DTYPES[dtype], str(c), gflops_per_s(c.flops(problem.batch), timings[DTYPES[dtype], "peak"]))
        for dtype, c in peak_convolutions.items()
    ]
    return rows, peaks


def measure_row(
    network: BenchmarkNetwork, problem: Problem, timings: Timings[tuple[str, str]], peak_convolution: Convolution
) -> Row:
    """Return the speed of one network from the timings of all."""
    forward = count_flops(network.network, (problem.batch, IN_CHANNELS, *problem.size))
    peak_ms = timings[DTYPES[network.form.dtype], "peak"]

    def speed(mode: str, flops: float) -> Speed:
        own = timings[network.name, mode]
        peak_per_own = median_ratio(peak_ms, own)
        return Speed(
            ms=statistics.median(own),
            ratio=median_ratio(own, timings[REFERENCE, mode]),
            gflops_per_s=gflops_per_s(flops, own),
            share_of_peak=peak_per_own * flops / peak_convolution.flops(problem.batch),
            rounds_ms=own,
        )

    return Row(
        network.name,
        str(network.form),
        count_parameters(network.network),
        forward / problem.batch / 1e9,
        speed("training", 3 * forward),
        speed("inference", forward),
    )


def gflops_per_s(flops: float, timings_ms: Sequence[float]) -> float:
    """Return the GFLOP/s of a call of ``flops`` at its median time."""
    return flops / statistics.median(timings_ms) / 1e6
