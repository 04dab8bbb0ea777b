"""Group the operations of a training step into the parts of its layers, which are timed alone."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import conv_flop_count

from unet.benchmark.recording import RecordedOp
from unet.benchmark.timing import Timings

PARTS = ("forward", "input gradient", "weight gradient")
"""The parts of a convolution; those of other layers are ``forward`` and ``backward``."""
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


def total_round_ms(parts: Iterable[Part], timings: Timings[Any]) -> list[float]:
    """Return the ms of all calls of several parts in each round."""
    return [sum(times) for times in zip(*(part.round_ms(timings) for part in parts), strict=True)]


Parts = dict[tuple[str, str, str], Part]
"""The parts by layer, size and name."""


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
            arguments = {}
            if to_input:
                mask = {"output_mask": [True, False, False]}
                arguments["input gradient"] = mask, mask
            if any(to_weight):  # not of a fixed kernel, such as that of blur pooling
                arguments["weight gradient"] = (
                    {"output_mask": [False, *to_weight]},
                    {"output_mask": [False, True, False]},
                )
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
