"""Time and memory of every registered operator alone, forward and with the backward pass."""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unet.analysis import single_operator as stage
from unet.analysis.activation_memory import cuda_peak_bytes, saved_tensor_bytes
from unet.benchmark.forms import Form
from unet.benchmark.timing import measure, median_ratio
from unet.hardware import to_memory_format
from unet.network.model import CONTEXT, DOWN, UP
from unet.network.registry import Registry

TABLES = (DOWN, UP, CONTEXT)
REFERENCES = {"down": "max", "up": "transposed"}
"""The operator of each kind that ratios refer to; a context has none."""


@dataclass(frozen=True)
class OperatorShape:
    """The sizes every operator is measured at: a fine map (batch, channels, *size) and one half its size.

    An up operator receives twice the channels, a context these channels at the coarse size.
    """

    channels: int
    size: tuple[int, ...]
    batch: int
    form: Form
    device: str

    def inputs(self, table: Registry) -> list[Tensor]:
        return self.placed(stage.example_inputs(table, self.channels, self.size, self.batch))

    def placed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Leaves of autograd on the device, in the stage's form; bf16 as they come from a layer under autocast."""
        return [self.form.lay(x.to(self.device, self.form.dtype)).requires_grad_() for x in tensors]


@dataclass(frozen=True)
class Cost:
    """The cost of one operator. Times are medians in ms; ratios to the kind's reference are medians of the rounds.

    Attributes:
        kept: bytes saved for the backward pass, the input included, parameters and buffers not.
        peak: on a GPU, the peak of additional bytes in forward and backward pass.
    """

    kind: str
    name: str
    forward_ms: float
    forward_ratio: float | None
    training_ms: float
    training_ratio: float | None
    kept: int
    peak: int | None


class MeasuredOperator:
    """An operator and its inputs.

    Args:
        operator: in training mode; measured on a copy in evaluation mode as well.
        inputs: its arguments, leaves that require a gradient.
        form: the dtype it computes in, and the layout of weights and gradients.
    """

    def __init__(self, operator: nn.Module, inputs: Sequence[Tensor], form: Form):
        self.inputs, self.form = inputs, form
        self.operator = to_memory_format(operator.to(inputs[0].device), form.lay).train()
        self.evaluated = copy.deepcopy(self.operator).eval()
        output = self.output(self.operator)
        self.gradient = form.lay(torch.randn_like(output))

    def output(self, operator: nn.Module) -> Tensor:
        with self.form.autocast(self.inputs[0].device):
            return operator(*self.inputs)

    def forward(self) -> Tensor:
        """Run the operator in evaluation mode."""
        with torch.inference_mode():
            return self.output(self.evaluated)

    def training(self) -> None:
        """Run the forward and the backward pass."""
        output = self.output(self.operator)
        sources = [*self.inputs, *self.operator.parameters()]
        torch.autograd.grad(output, sources, self.gradient, allow_unused=True)

    def kept(self) -> int:
        known = (*self.operator.parameters(), *self.operator.buffers())
        return saved_tensor_bytes(lambda: self.output(self.operator), known)

    def peak(self) -> int | None:
        return cuda_peak_bytes(self.training) if self.inputs[0].is_cuda else None


def measured_operators(shape: OperatorShape) -> Iterator[tuple[tuple[str, str], MeasuredOperator]]:
    """Yield (kind, name) and every operator that supports the number of axes."""
    for table in TABLES:
        inputs = shape.inputs(table)
        for name in table:
            if name != "none" and len(shape.size) in stage.supported_dims(table, name):
                operator = stage.build_operator(table, name, len(shape.size), shape.channels)
                yield (table.kind, name), MeasuredOperator(operator, inputs, shape.form)


def compare_operators(shape: OperatorShape, rounds: int) -> list[Cost]:
    """Time all operators in the same rounds, and measure the memory of each."""
    operators = dict(measured_operators(shape))
    calls: dict[tuple[str, str, str], Callable[[], object]] = {}
    for (kind, name), operator in operators.items():
        calls[kind, name, "forward"] = operator.forward
        calls[kind, name, "training"] = operator.training
    timings = measure(calls, rounds, say=True)

    def ratio(kind: str, name: str, what: str) -> float | None:
        if kind not in REFERENCES:
            return None
        return median_ratio(timings[kind, name, what], timings[kind, REFERENCES[kind], what])

    return [
        Cost(
            kind,
            name,
            statistics.median(timings[kind, name, "forward"]),
            ratio(kind, name, "forward"),
            statistics.median(timings[kind, name, "training"]),
            ratio(kind, name, "training"),
            operator.kept(),
            operator.peak(),
        )
        for (kind, name), operator in operators.items()
    ]
