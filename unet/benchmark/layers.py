"""Time every layer of a training step alone, against the convolution peak and against the whole step."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import conv_flop_count

from unet.benchmark.baselines import BenchmarkNetwork, Workload
from unet.benchmark.networks import Peak, gflops_per_s
from unet.benchmark.peak import fastest, peak_calls
from unet.benchmark.recording import RecordedOp, record_step
from unet.benchmark.tensor_format import DTYPES
from unet.benchmark.timing import Timings, measure, median_ratio

PARTS = ("forward", "input gradient", "weight gradient")
LAYER_NAMES = {
    "native_batch_norm": "batch norm",
    "cudnn_batch_norm": "batch norm",
    "threshold": "relu",
    "max_pool2d_with_indices": "max pool",
    "cat": "concatenation",
    "_to_copy": "cast",
    "_log_softmax": "log softmax",
    "nll_loss2d": "loss",
    "slice": "crop or slice",
    "narrow_copy": "crop",
}
"""Layers by the name of torch's operation; others keep that name."""


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


Call = Callable[[], object]


@dataclass
class Part:
    """The calls of one part of a layer, the number of each in a step, and the FLOPs or bytes of all in a step."""

    calls: list[Call] = field(default_factory=list)
    plain_calls: list[Call] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    amount: int = 0

    def add(self, call: Call, count: int, amount: int, plain: Call | None = None) -> None:
        """Add a call that occurs ``count`` times in a step, and whose FLOPs or bytes are ``amount``.

        ``plain``: the kernel on contiguous arguments and without a bias, if it is another call.
        """
        self.calls.append(call)
        self.plain_calls.append(plain or call)
        self.counts.append(count)
        self.amount += count * amount

    def round_ms(self, timings: Timings[Any], plain: bool = False) -> list[float]:
        """Return the ms of all calls of a step in each round."""
        rounds = zip(*(timings[call] for call in (self.plain_calls if plain else self.calls)), strict=True)
        return [sum(n * ms for n, ms in zip(self.counts, times, strict=True)) for times in rounds]


Parts = dict[tuple[str, str, str], Part]
"""The parts by layer, size and name."""


def compare_layers(workload: Workload, network: BenchmarkNetwork, rounds: int) -> StepSpeed:
    """Time all parts of all layers, the fastest convolution, and the whole training step in the same rounds."""
    step = network.training_step(workload.image(), workload.target())
    ops = record_step(step)
    optimizer = Part()
    for op in ops:
        if op.phase == "optimizer":
            optimizer.add(op.call(), op.count, op.num_bytes)
    ops = [op for op in ops if op.phase != "optimizer"]
    convolutions = convolution_parts(
        (op for op in ops if op.name.startswith("convolution")), network.format.to_memory_format
    )
    weights = {tuple(parameter.shape) for parameter in network.network.parameters()}
    others = other_parts((op for op in ops if not op.name.startswith("convolution")), weights)
    dtype = network.format.dtype
    parts = [*convolutions.values(), *others.values(), optimizer]
    calls = {call: call for call in (step, *(call for part in parts for call in (*part.calls, *part.plain_calls)))}
    timings = measure(peak_calls(workload, dtype) | calls, rounds, verbose=True)
    peak, step_ms = fastest(timings, dtype), timings[step]

    def layer_speeds(parts: Parts, peak_flops_ms: Sequence[float] | None = None) -> list[LayerSpeed]:
        speeds = []
        for layer, size in dict.fromkeys(key[:2] for key in parts):
            own = {name: part for (*key, name), part in parts.items() if key == [layer, size]}
            total_ms = [sum(times) for times in zip(*(part.round_ms(timings) for part in own.values()), strict=True)]
            speeds.append(
                LayerSpeed(
                    layer,
                    size,
                    max(sum(part.counts) for part in own.values()),
                    {name: part_speed(part, timings, peak_flops_ms) for name, part in own.items()},
                    median_ratio(total_ms, step_ms),
                )
            )
        return speeds

    def total(parts: Iterable[Part]) -> list[float]:
        return [sum(times) for times in zip(*(part.round_ms(timings) for part in parts), strict=True)]

    peak_ms = [ms / peak.flops(workload.batch) for ms in timings[dtype, peak]]
    return StepSpeed(
        convolutions=layer_speeds(convolutions, peak_ms),
        others=layer_speeds(others),
        peak=Peak(DTYPES[dtype], str(peak), gflops_per_s(1, peak_ms)),
        step_ms=statistics.median(step_ms),
        convolutions_ms=statistics.median(total(convolutions.values())),
        others_ms=statistics.median(total(others.values())),
        optimizer_ms=statistics.median(total([optimizer])),
        sum_fraction=median_ratio(total(parts), step_ms),
    )


def part_speed(part: Part, timings: Timings[Any], peak_flops_ms: Sequence[float] | None) -> PartSpeed:
    """Return the speed of a part; ``peak_flops_ms``: the ms of one FLOP at the peak in each round, for convolutions."""
    own_ms = part.round_ms(timings)
    speed = PartSpeed(statistics.median(own_ms), gflops_per_s(part.amount, own_ms))
    if peak_flops_ms is None:
        return speed
    speed = replace(speed, peak_fraction=median_ratio(peak_flops_ms, own_ms) * part.amount)
    if part.plain_calls == part.calls:
        return speed
    plain_ms = part.round_ms(timings, plain=True)
    return replace(speed, plain_peak_fraction=median_ratio(peak_flops_ms, plain_ms) * part.amount)


def convolution_parts(ops: Iterable[RecordedOp], layout: Callable[[Tensor], Tensor]) -> Parts:
    """Return the parts of the convolutions; a gradient is exactly the kernel that ``convolution_backward`` runs.

    ``layout`` returns a tensor in the memory format of the network.
    """
    parts: Parts = {}
    for op in ops:
        if op.name == "convolution":
            image, weight, _, stride, _, dilation, transposed, _, groups = op.args
            output: Any = op.call()()
            arguments: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"forward": ({}, {})}
        else:
            output, image, weight, _, stride, _, dilation, transposed, _, groups, (to_input, *to_weight) = op.args
            to_input, to_weight = [to_input, False, False], [False, *to_weight]
            arguments = (
                {"input gradient": ({"output_mask": to_input}, {"output_mask": to_input})} if to_input[0] else {}
            )
            arguments["weight gradient"] = ({"output_mask": to_weight}, {"output_mask": [False, True, False]})
        name = convolution_name(image, weight, stride, dilation, transposed, groups)
        flops = conv_flop_count(list(image.shape), list(weight.shape), list(output.shape), transposed)
        contiguous = op.with_layout(layout)
        for part, (own, plain) in arguments.items():
            key = (name, join_sizes(output.shape[2:]), part)
            is_plain = contiguous is None and own == plain
            parts.setdefault(key, Part()).add(
                op.call(**own), op.count, flops, None if is_plain else (contiguous or op).call(**plain)
            )
    return parts


def convolution_name(
    image: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], transposed: bool, groups: int
) -> str:
    """Return the name of a convolution, such as ``conv 3x3, 16 to 32``."""
    out_channels = weight.shape[1] * groups if transposed else weight.shape[0]
    name = (
        f"{'transposed' if transposed else 'conv'} {join_sizes(weight.shape[2:])}, {image.shape[1]} to {out_channels}"
    )
    name += f", stride {max(stride)}" if max(stride) > 1 and not transposed else ""
    name += f", dilation {max(dilation)}" if max(dilation) > 1 else ""
    return name + (f", groups {groups}" if groups > 1 else "")


def other_parts(ops: Iterable[RecordedOp], weights: set[tuple[int, ...]]) -> Parts:
    """Return the parts of all other layers; the size is that of the largest feature map, or ``weights``."""
    parts: Parts = {}
    for op in ops:
        name = op.name.rstrip("_").removesuffix("_data").removesuffix("_backward").removesuffix("_forward")
        maps = [x for x in op.tensors if x.ndim >= 3 and tuple(x.shape) not in weights]
        size = join_sizes(max((x.shape[2:] for x in maps), key=math.prod)) if maps else "weights"
        key = (LAYER_NAMES.get(name, name), size, op.phase)
        parts.setdefault(key, Part()).add(op.call(), op.count, op.num_bytes)
    return parts


def join_sizes(size: Sequence[int]) -> str:
    """Return a size as text, such as ``128x128``."""
    return "x".join(map(str, size))
