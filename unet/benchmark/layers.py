"""Time every layer of a training step alone, against the convolution peak and against the whole step."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unet.benchmark.baselines import BenchmarkNetwork, Workload
from unet.benchmark.networks import Peak, gflops_per_s
from unet.benchmark.peak import fastest, peak_calls
from unet.benchmark.recording import record_step
from unet.benchmark.step_parts import Part, Parts, convolution_parts, other_parts, total_round_ms
from unet.benchmark.tensor_format import DTYPES
from unet.benchmark.timing import Timings, measure, median_ratio


@dataclass(frozen=True)
class PartSpeed:
    """The calls of one part of a layer in a step: their time in ms, GFLOP/s or GB/s, and fraction of the peak.

    ``plain_peak_fraction``: that of the kernel on contiguous arguments and without a bias, where the step's are not so.
    """

    ms: float
    rate: float
    peak_fraction: float | None = None
    plain_peak_fraction: float | None = None


@dataclass(frozen=True)
class LayerSpeed:
    """A layer, the size of its output, its occurrences in a step, its parts, and its fraction of the step's time.

    The parts of a convolution are ``PARTS``, those of others ``forward`` and ``backward``; the first convolution needs
    no gradient of its input.
    """

    layer: str
    size: str
    count: int
    parts: dict[str, PartSpeed]
    step_fraction: float


@dataclass(frozen=True)
class StepSpeed:
    """The layers of a training step, and the times in ms of the step, of the optimizer, and of the sum of all parts."""

    convolutions: list[LayerSpeed]
    others: list[LayerSpeed]
    peak: Peak
    step_ms: float
    convolutions_ms: float
    others_ms: float
    optimizer_ms: float
    sum_fraction: float


def compare_layers(workload: Workload, network: BenchmarkNetwork, rounds: int) -> StepSpeed:
    """Time all parts of all layers, the network's own convolutions, and the whole training step in the same rounds."""
    step, dtype = network.training_step(workload.image(), workload.target()), network.format.dtype
    ops = record_step(step)
    layers = [op for op in ops if op.phase != "optimizer"]
    convolutions = convolution_parts([op for op in layers if op.is_convolution], network.format.to_memory_format)
    weights = {tuple(parameter.shape) for parameter in network.network.parameters()}
    others = other_parts([op for op in layers if not op.is_convolution], weights)
    optimizer = Part()
    for op in ops:
        if op.phase == "optimizer":
            optimizer.add(op.call(), op.count, op.num_bytes)
    parts = [*convolutions.values(), *others.values(), optimizer]
    calls = [step, *(call for part in parts for call in (*part.calls, *part.plain_calls))]
    timings = measure(peak_calls(workload, dtype) | {call: call for call in calls}, rounds, verbose=True)
    peak = fastest(timings, dtype)
    peak_flop_ms = [ms / peak.flops(workload.batch) for ms in timings[dtype, peak]]
    step_ms = timings[step]
    return StepSpeed(
        convolutions=layer_speeds(convolutions, timings, step_ms, peak_flop_ms),
        others=layer_speeds(others, timings, step_ms),
        peak=Peak(DTYPES[dtype], str(peak), gflops_per_s(1, peak_flop_ms)),
        step_ms=statistics.median(step_ms),
        convolutions_ms=statistics.median(total_round_ms(convolutions.values(), timings)),
        others_ms=statistics.median(total_round_ms(others.values(), timings)),
        optimizer_ms=statistics.median(optimizer.round_ms(timings)),
        sum_fraction=median_ratio(total_round_ms(parts, timings), step_ms),
    )


def layer_speeds(
    parts: Parts, timings: Timings[Any], step_ms: Sequence[float], peak_flop_ms: Sequence[float] | None = None
) -> list[LayerSpeed]:
    """Return the speeds of layers; ``peak_flop_ms``: the ms of one FLOP at the peak in each round, for convolutions."""
    speeds = []
    for layer, size in dict.fromkeys(key[:2] for key in parts):
        own = {name: part for (*key, name), part in parts.items() if key == [layer, size]}
        speeds.append(
            LayerSpeed(
                layer,
                size,
                count=max(sum(part.counts) for part in own.values()),
                parts={name: part_speed(part, timings, peak_flop_ms) for name, part in own.items()},
                step_fraction=median_ratio(total_round_ms(own.values(), timings), step_ms),
            )
        )
    return speeds


def part_speed(part: Part, timings: Timings[Any], peak_flop_ms: Sequence[float] | None) -> PartSpeed:
    """Return the speed of a part of a layer."""
    own_ms = part.round_ms(timings)
    speed = PartSpeed(statistics.median(own_ms), gflops_per_s(part.amount, own_ms))
    if peak_flop_ms is None:
        return speed
    speed = replace(speed, peak_fraction=median_ratio(peak_flop_ms, own_ms) * part.amount)
    if part.plain_calls == part.calls:
        return speed
    plain_ms = part.round_ms(timings, plain=True)
    return replace(speed, plain_peak_fraction=median_ratio(peak_flop_ms, plain_ms) * part.amount)
