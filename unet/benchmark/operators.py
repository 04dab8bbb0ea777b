"""Every registered operator alone at one stage: time and memory, forward and with the backward pass."""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unet import stage
from unet.benchmark.forms import Form
from unet.benchmark.timing import measure, median_ratio
from unet.hardware import lay
from unet.memory import cuda_peak_bytes, saved_tensor_bytes
from unet.model import CONTEXT, DOWN, UP
from unet.registry import Registry

TABLES = (DOWN, UP, CONTEXT)
REFERENCES = {"down": "max", "up": "transposed"}
"""The operators whose time the others' of their kind are divided by; a context has none."""


@dataclass(frozen=True)
class Stage:
    """Where every operator is measured: between a fine map (batch, channels, *size) and one half its size.

    An up operator receives twice the channels, a context these channels at the coarse size.
    """

    channels: int
    size: tuple[int, ...]
    batch: int
    form: Form
    device: str

    def inputs(self, table: Registry) -> list[Tensor]:
        return self.placed(stage.inputs(table, self.channels, self.size, self.batch))

    def placed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Leaves of autograd on the device, in the stage's form; bf16 as they come from a layer under autocast."""
        return [self.form.lay(x.to(self.device, self.form.dtype)).requires_grad_() for x in tensors]


@dataclass(frozen=True)
class Cost:
    """One operator. Times are medians in ms, ratios those to the kind's reference, median of the rounds'.

    Attributes:
        kept: bytes kept for the backward pass, beyond parameters and buffers; of its input what it keeps counts.
        peak: on a GPU, bytes beyond what is there before, at the worst moment of forward and backward pass.
    """

    kind: str
    name: str
    forward_ms: float
    forward_ratio: float | None
    training_ms: float
    training_ratio: float | None
    kept: int
    peak: int | None
    training_rounds_ms: list[float]


class Subject:
    """An operator and the inputs it is measured on.

    Args:
        operator: in training mode; measured on a copy in evaluation mode as well.
        inputs: its arguments, leaves that require a gradient.
        form: the dtype it computes in, and the layout of weights and gradients.
    """

    def __init__(self, operator: nn.Module, inputs: Sequence[Tensor], form: Form):
        self.inputs, self.form = inputs, form
        self.operator = lay(operator.to(inputs[0].device), form.lay).train()
        self.evaluated = copy.deepcopy(self.operator).eval()
        output = self.output(self.operator)
        self.gradient = form.lay(torch.randn_like(output))

    def output(self, call: Callable[..., Tensor]) -> Tensor:
        with self.form.autocast(self.inputs[0].device):
            return call(*self.inputs)

    def forward(self) -> Tensor:
        """Inference."""
        with torch.inference_mode():
            return self.output(self.evaluated)

    def training(self, call: Callable[..., Tensor] | None = None) -> list[Tensor | None]:
        """Forward and backward pass of the operator or of another form of it: the output, then the gradients."""
        output = self.output(call or self.operator)
        wanted = [*self.inputs, *self.operator.parameters()]
        return [output.detach(), *torch.autograd.grad(output, wanted, self.gradient, allow_unused=True)]

    def kept(self) -> int:
        known = (*self.operator.parameters(), *self.operator.buffers())
        return saved_tensor_bytes(lambda: self.output(self.operator), known)

    def peak(self) -> int | None:
        return cuda_peak_bytes(self.training) if self.inputs[0].is_cuda else None


def subjects(place: Stage) -> Iterator[tuple[tuple[str, str], Subject]]:
    """(kind, name) and operator, of all that serve the stage's dimensions."""
    for table in TABLES:
        inputs = place.inputs(table)
        for name in table:
            if name != "none" and len(place.size) in stage.served(table, name):
                operator = stage.build(table, name, len(place.size), place.channels)
                yield (table.kind, name), Subject(operator, inputs, place.form)


def compare_operators(place: Stage, rounds: int) -> list[Cost]:
    """Time all operators in the same rounds, and count what each keeps."""
    present = dict(subjects(place))
    calls: dict[tuple[str, str, str], Callable[[], object]] = {}
    for (kind, name), subject in present.items():
        calls[kind, name, "forward"] = subject.forward
        calls[kind, name, "training"] = subject.training
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
            subject.kept(),
            subject.peak(),
            timings[kind, name, "training"],
        )
        for (kind, name), subject in present.items()
    ]
