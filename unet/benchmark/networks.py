"""All contenders in the same rounds: milliseconds, ratios, and shares of the machine's convolution peak."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unet.benchmark.contenders import IN_CHANNELS, REFERENCE, Contender, Problem
from unet.benchmark.forms import DTYPES
from unet.benchmark.peak import Convolution, fastest_convolution
from unet.benchmark.steps import inference, training_step
from unet.benchmark.timing import Timings, measure, median_ratio
from unet.geometry import count_flops, count_parameters


@dataclass(frozen=True)
class Speed:
    """One contender doing one thing: the median in ms, that over this project's, and what it made of the machine.

    ``share_of_peak`` is of the convolution peak in the contender's own dtype, 0 to 1.
    """

    ms: float
    ratio: float
    gflops_per_s: float
    share_of_peak: float
    rounds_ms: list[float]


@dataclass(frozen=True)
class Row:
    """One contender's line of the table. ``gflops`` of one forward pass on one image; training counts as three."""

    name: str
    form: str
    parameters: int
    gflops: float
    training: Speed
    inference: Speed


@dataclass(frozen=True)
class Peak:
    """The convolution peak measured in one dtype: where, and the median GFLOP/s."""

    dtype: str
    convolution: str
    gflops_per_s: float


def compare_networks(problem: Problem, present: Sequence[Contender], rounds: int) -> tuple[list[Row], list[Peak]]:
    """Time all contenders, and the convolutions that mark the peak, in the same rounds."""
    dtypes = sorted({contender.form.dtype for contender in present}, key=str)
    yardsticks = {dtype: fastest_convolution(problem, dtype) for dtype in dtypes}
    image, target = problem.image(), problem.target()
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for contender in present:
        calls[contender.name, "inference"] = inference(contender, image)
        calls[contender.name, "training"] = training_step(contender, image, target)
    for dtype, convolution in yardsticks.items():
        calls[DTYPES[dtype], "peak"] = convolution.call(problem, dtype)
    timings = measure(calls, rounds, say=True)
    rows = [row(contender, problem, timings, yardsticks[contender.form.dtype]) for contender in present]
    peaks = [
        Peak(DTYPES[dtype], str(c), gflops_per_s(c.flops(problem.batch), timings[DTYPES[dtype], "peak"]))
        for dtype, c in yardsticks.items()
    ]
    return rows, peaks


def row(contender: Contender, problem: Problem, timings: Timings[tuple[str, str]], yardstick: Convolution) -> Row:
    """A contender's numbers from the timings of all."""
    forward = count_flops(contender.network, (problem.batch, IN_CHANNELS, *problem.size))
    peak_ms = timings[DTYPES[contender.form.dtype], "peak"]

    def speed(what: str, flops: float) -> Speed:
        own = timings[contender.name, what]
        peak_per_own = median_ratio(peak_ms, own)  # seconds at the peak per second here, for the yardstick's FLOPs
        return Speed(
            ms=statistics.median(own),
            ratio=median_ratio(own, timings[REFERENCE, what]),
            gflops_per_s=gflops_per_s(flops, own),
            share_of_peak=peak_per_own * flops / yardstick.flops(problem.batch),
            rounds_ms=own,
        )

    return Row(
        contender.name,
        str(contender.form),
        count_parameters(contender.network),
        forward / problem.batch / 1e9,
        speed("training", 3 * forward),
        speed("inference", forward),
    )


def gflops_per_s(flops: float, timings_ms: Sequence[float]) -> float:
    """``flops`` a call at the median time, in GFLOP/s."""
    return flops / statistics.median(timings_ms) / 1e6
