"""Record every torch operation of a training step, so that each can be timed alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from unet.benchmark.baselines import TrainingStep


@dataclass
class RecordedOp:
    """An operation with copies of the arguments of its first call, and the number of its calls in the step.

    ``num_bytes``: its tensor arguments and its results, each read or written once.
    """

    phase: str
    func: torch._ops.OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    num_bytes: int = 0
    count: int = 0

    @property
    def name(self) -> str:
        """The name of the operation without its overload, such as ``convolution_backward``."""
        return self.func._schema.name.partition("::")[2]

    @property
    def is_convolution(self) -> bool:
        """Whether this is the forward or the backward pass of a convolution, transposed ones included."""
        return self.name in ("convolution", "convolution_backward")

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return tensors_in((self.args, self.kwargs))

    def call(self, **replaced: Any) -> Callable[[], object]:
        """Return a function that runs the operation, with other values for the arguments of some names."""
        names = [argument.name for argument in self.func._schema.arguments]
        args = [replaced.get(name, value) for name, value in zip(names, self.args, strict=False)]

        def run() -> object:
            with torch.no_grad():
                return self.func(*args, **self.kwargs)

        return run

    def with_layout(self, layout: Callable[[Tensor], Tensor]) -> "RecordedOp | None":
        """Return the operation with all tensors in a memory format; None if they are in it already."""
        args, kwargs = tree_map_only(Tensor, layout, (self.args, self.kwargs))
        moved = replace(self, args=args, kwargs=kwargs)
        return None if all(a is b for a, b in zip(self.tensors, moved.tensors, strict=True)) else moved


class OpRecorder(TorchDispatchMode):
    """A mode in which torch's operations are recorded, equal ones once. Views and empty tensors are left out.

    Operations are equal if the shapes, strides and dtypes of their tensors and all other arguments are.
    """

    def __init__(self):
        super().__init__()
        self.phase = ""
        self.ops: dict[tuple[Any, ...], RecordedOp] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view or func.namespace == "profiler" or func._schema.name.startswith("aten::empty"):
            return func(*args, **kwargs)
        key = (self.phase, func, str(tree_map_only(Tensor, describe_layout, (args, kwargs))))
        if key not in self.ops:  # copied before the call, which may write to its arguments
            self.ops[key] = RecordedOp(self.phase, func, *tree_map_only(Tensor, copy_with_strides, (args, kwargs)))
        result, op = func(*args, **kwargs), self.ops[key]
        op.num_bytes = sum(x.numel() * x.element_size() for x in (*op.tensors, *tensors_in(result)))
        op.count += 1
        return result

    @contextmanager
    def record(self, phase: str) -> Iterator[None]:
        """Record the operations within the context under the name of a phase."""
        self.phase = phase
        with self:
            yield


def record_step(step: TrainingStep) -> list[RecordedOp]:
    """Return the operations of a training step in the phases ``forward``, ``backward`` and ``optimizer``."""
    step()  # the optimizer makes its state in the first step
    step.optimizer.zero_grad()
    recorder = OpRecorder()
    with recorder.record("forward"):
        loss = step.loss()
    with recorder.record("backward"):
        loss.backward()
    with recorder.record("optimizer"):
        step.optimizer.step()
    return list(recorder.ops.values())


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors of nested lists, tuples and dicts."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def describe_layout(x: Tensor) -> str:
    """Return the shape, strides and dtype of a tensor as text."""
    return f"{tuple(x.shape)} {x.stride()} {x.dtype}"


def copy_with_strides(x: Tensor) -> Tensor:
    """Copy a tensor with its strides; ``clone`` would make a slice contiguous, and the operation faster."""
    if x.numel() == 0:
        return x.clone()
    length = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((length,), (1,)).clone().as_strided(x.shape, x.stride(), 0)
