"""Write the README's table of operators, measured on the registered operators.

    python scripts/maintain/operator_table.py

Parameters and FLOPs are those of an operator between 64 x 64 and 32 x 32 with 64 channels (an up operator: 128 to 64).
``field`` is the receptive field along an axis. ``CUDA`` lists the dimensions with a deterministic implementation on a
GPU, from the operations of a forward and a backward pass and torch's list of nondeterministic ones.
"""

import argparse
import inspect
import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from unet import CONTEXT, DOWN, UP
from unet.analysis.receptive_field import apply_up, interval_length, measure_interval
from unet.analysis.single_operator import build_operator, example_inputs, supported_dims
from unet.errors import UserError
from unet.io.atomic import replace_block, write_text
from unet.io.provenance import ROOT
from unet.network.geometry import count_parameters
from unet.network.registry import Registry

README = ROOT / "README.md"
BEGIN, END = "<!-- operators: scripts/maintain/operator_table.py -->", "<!-- end of operators -->"
CHANNELS, SIZE = 64, 64
TABLES = {"model.down": DOWN, "model.up": UP, "model.context": CONTEXT}
NONDETERMINISTIC = re.compile(
    r"avg_pool3d_backward|adaptive_\w+_backward|upsample_(linear1d|bilinear2d|trilinear3d|bicubic2d)_backward|"
    r"reflection_pad\w*_backward|grid_sampler\w*_backward|max_unpool"
)
"""Operations without a deterministic implementation on CUDA, from torch.use_deterministic_algorithms."""


def flops(table: Registry, name: str) -> int:
    """Return the FLOPs of an operator on one image."""
    with torch.device("meta"):
        operator = build_operator(table, name, 2, CHANNELS)
        arguments = example_inputs(table, CHANNELS, (SIZE, SIZE), batch=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        operator.eval()(*arguments)
    return counter.get_total_flops()


def field(table: Registry, name: str) -> str:
    """Return the receptive field of an operator in pixels of its (coarse, for an up operator) input, or ``all``."""
    dims = supported_dims(table, name)[0]
    operator = build_operator(table, name, dims, channels=2).double().eval()
    unit, stride = (1,) * dims, (2,) * dims
    if table is UP:
        interval = measure_interval(partial(apply_up, operator, stride, 2, 4, "x"), 4, unit, 2, 0)
    else:
        interval = measure_interval(operator, 2, stride if table is DOWN else unit, 1, 0)
    assert interval is not None
    widest = max(interval_length(ends) for ends in zip(interval.first, interval.last, strict=True))
    return "all" if math.isinf(widest) else f"{widest:.0f}"


class OperationRecorder(TorchDispatchMode):
    """A mode that records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def is_deterministic(table: Registry, name: str, dims: int) -> bool:
    """Return whether all operations of a forward and a backward pass are deterministic."""
    operator = build_operator(table, name, dims, channels=4)
    with OperationRecorder() as recorder:
        output = operator(*(x.requires_grad_() for x in example_inputs(table, 4, (8,) * dims, batch=2)))
        output.sum().backward()
    return not any(NONDETERMINISTIC.search(name) for name in recorder.names)


def first_sentence(cls: type) -> str:
    """Return the first sentence of a class's docstring."""
    return re.split(r"(?<=[.:])\s", " ".join((inspect.getdoc(cls) or "").split()))[0].rstrip(".:")


def source(cls: type) -> str:
    """Return a link to the paper in the docstring of a class or of its module."""
    module = inspect.getmodule(cls)
    texts = [(inspect.getdoc(cls) or "").partition("Source:")[2], inspect.getdoc(module) or ""]
    for text in (" ".join(text.split()) for text in texts):
        author = re.search(r"[A-Z]\w+(?: (?:&|et al\.)(?: [A-Z]\w+)?)?(?: et al\.)? \d{4}", text)
        if author:
            link = re.search(r"https?://[^\s,;)]+", text)
            return f"[{author[0]}]({link[0].rstrip('.')})" if link else author[0]
    raise UserError(f"{cls.__name__}: no paper in its docstring; add Source: Author et al. YEAR, https://...")


def options(cls: type) -> str:
    """Return the options that an operator does not inherit, with their defaults, such as ``kernel_size=3``."""
    parameters = inspect.signature(cls).parameters.values()
    own = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in ("norm", "act")}
    texts = (name if value is None else f"{name}={value}".replace(" ", "") for name, value in own.items())
    return " ".join(f"`{text}`" for text in texts)


def table_lines(key: str, table: Registry) -> Iterator[str]:
    """Yield the lines of the table of one registry."""
    yield f"| `{key}` | what it does | 1-D 2-D 3-D | parameters | MFLOP | field | CUDA | options | source |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, cls in table.items():
        if name == "none":
            continue
        dims = supported_dims(table, name)
        exact = [n for n in dims if is_deterministic(table, name, n)]
        aliases = "".join(f", `{alias}`" for alias, target in table.aliases.items() if target == name)
        cells = (
            f"`{name}`{aliases}",
            first_sentence(cls),
            " ".join(f"{n}-D" for n in dims),
            f"{count_parameters(build_operator(table, name, 2, CHANNELS)):,}",
            f"{flops(table, name) / 1e6:.1f}",
            field(table, name),
            "yes" if exact == dims else " ".join(f"{n}-D" for n in exact) or "no",
            options(cls),
            source(cls),
        )
        yield f"| {' | '.join(cells)} |"


def update(readme: str) -> str:
    """Return the README with current tables of the three registries."""
    tables = ("\n".join(table_lines(key, registry)) for key, registry in TABLES.items())
    return replace_block(readme, BEGIN, "\n\n".join(tables), END)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(README, update(README.read_text(encoding="utf-8")))
