"""Measure time and memory of every registered operator alone, forward and with the backward pass."""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unet.analysis import single_operator
from unet.analysis.activation_memory import cuda_peak_bytes, saved_tensor_bytes
from unet.benchmark.tensor_format import TensorFormat
from unet.benchmark.timing import measure, median_ratio
from unet.hardware import to_memory_format
from unet.network.model import CONTEXT, DOWN, UP
from unet.network.registry import Registry

TABLES = (DOWN, UP, CONTEXT)
REFERENCES = {"down": "max", "up": "transposed"}
"""The reference operator of each kind; a context has none."""


@dataclass(frozen=True)
class OperatorShape:
    """The input of every operator: a fine map (batch, channels, *size), or a coarse one of half its size.

    An up operator gets twice the channels, a context these channels at the coarse size.
    """

    channels: int
    size: tuple[int, ...]
    batch: int
    format: TensorFormat
    device: str

    def inputs(self, table: Registry) -> list[Tensor]:
        """Return random inputs, leaves of autograd in the format; bf16 as after a layer under autocast."""
        inputs = single_operator.example_inputs(table, self.channels, self.size, self.batch)
        inputs = [self.format.to_memory_format(x.to(self.device, self.format.dtype)) for x in inputs]
        return [x.requires_grad_() for x in inputs]


@dataclass(frozen=True)
class OperatorCost:
    """The cost of one operator: median times in ms, and medians of the ratios to the reference within a round."""

    kind: str
    name: str
    forward_ms: float
    forward_ratio: float | None
    training_ms: float
    training_ratio: float | None
    saved_bytes: int
    peak_bytes: int | None


class MeasuredOperator:
    """An operator with its inputs, leaves that require a gradient; a copy is measured in evaluation mode."""

    def __init__(self, operator: nn.Module, inputs: Sequence[Tensor], tensor_format: TensorFormat):
        self.inputs, self.format = inputs, tensor_format
        self.operator = to_memory_format(operator.to(inputs[0].device), tensor_format.to_memory_format).train()
        self.eval_operator = copy.deepcopy(self.operator).eval()
        self.gradient = tensor_format.to_memory_format(torch.randn_like(self.output(self.operator)))

    def output(self, operator: nn.Module) -> Tensor:
        """Run an operator under autocast."""
        with self.format.autocast(self.inputs[0].device):
            return operator(*self.inputs)

    def forward(self) -> Tensor:
        """Run the operator in evaluation mode."""
        with torch.inference_mode():
            return self.output(self.eval_operator)

    def training(self) -> None:
        """Run the forward and the backward pass."""
        output = self.output(self.operator)
        sources = [*self.inputs, *self.operator.parameters()]
        torch.autograd.grad(output, sources, self.gradient, allow_unused=True)

    def saved_bytes(self) -> int:
        """Return the bytes saved for the backward pass."""
        known = (*self.operator.parameters(), *self.operator.buffers())
        return saved_tensor_bytes(lambda: self.output(self.operator), known)

    def peak_bytes(self) -> int | None:
        """Return the largest additional memory in bytes; None on a CPU."""
        return cuda_peak_bytes(self.training) if self.inputs[0].is_cuda else None


def compare_operators(shape: OperatorShape, rounds: int) -> list[OperatorCost]:
    """Time all operators that support the number of axes in the same rounds, and measure the memory of each."""
    dims = len(shape.size)
    operators: dict[tuple[str, str], MeasuredOperator] = {}
    for table in TABLES:
        inputs = shape.inputs(table)
        for name in table:
            if name != "none" and dims in single_operator.supported_dims(table, name):
                operator = single_operator.build_operator(table, name, dims, shape.channels)
                operators[table.kind, name] = MeasuredOperator(operator, inputs, shape.format)
    calls: dict[tuple[str, str, str], Callable[[], object]] = {}
    for (kind, name), operator in operators.items():
        calls[kind, name, "forward"], calls[kind, name, "training"] = operator.forward, operator.training
    timings = measure(calls, rounds, verbose=True)

    def time_and_ratio(kind: str, name: str, mode: str) -> tuple[float, float | None]:
        own_ms, reference = timings[kind, name, mode], REFERENCES.get(kind)
        ratio = median_ratio(own_ms, timings[kind, reference, mode]) if reference else None
        return statistics.median(own_ms), ratio

    costs = []
    for (kind, name), operator in operators.items():
        times = (*time_and_ratio(kind, name, "forward"), *time_and_ratio(kind, name, "training"))
        costs.append(OperatorCost(kind, name, *times, operator.saved_bytes(), operator.peak_bytes()))
    return costs
