"""The README's table of operators, from the registries: what is measured on each is measured here, not written down.

    python scripts/maintain/operator_table.py          write the table into the README
    python scripts/maintain/operator_table.py --print  only show it

Parameters and FLOPs are those of a stage between 64 x 64 and 32 x 32: a down operator keeps its 64 channels, an up
operator brings 128 to 64, a context has 64. ``field`` is how many samples of its input an output looks at along an
axis. ``CUDA`` says in which dimensions everything has a deterministic form on a GPU, from the operations that a forward
and a backward pass call and torch's list of those that have none.
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
INHERITED = ("norm", "act")
"""Options that an operator takes from the whole network."""
NONDETERMINISTIC = re.compile(
    r"avg_pool3d_backward|adaptive_\w+_backward|upsample_(linear1d|bilinear2d|trilinear3d|bicubic2d)_backward|"
    r"reflection_pad\w*_backward|grid_sampler\w*_backward|max_unpool"
)
"""torch.use_deterministic_algorithms, list of what raises on CUDA; a training of ours warns instead of raising."""


def flops(table: Registry, name: str) -> int:
    """Of one image."""
    with torch.device("meta"):
        operator = build_operator(table, name, 2, CHANNELS)
        arguments = example_inputs(table, CHANNELS, (SIZE, SIZE), batch=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        operator.eval()(*arguments)
    return counter.get_total_flops()


def field(table: Registry, name: str) -> str:
    """Samples of the (coarse, for an up operator) input that an output sample looks at; ``all`` of them, for some."""
    operator = build_operator(table, name, supported_dims(table, name)[0], channels=2)
    operator.double().eval()
    dims = supported_dims(table, name)[0]
    one, two = (1,) * dims, (2,) * dims
    if table is UP:
        found = measure_interval(partial(apply_up, operator, two, 2, 4, "x"), 4, one, 2, 0)
    else:
        found = measure_interval(operator, 2, two if table is DOWN else one, 1, 0)
    assert found is not None
    widest = max(interval_length(ends) for ends in zip(found.first, found.last, strict=True))
    return "all" if math.isinf(widest) else f"{widest:.0f}"


class Calls(TorchDispatchMode):
    """The operations that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def deterministic(table: Registry, name: str, dims: int) -> bool:
    """Whether nothing that a training calls is on torch's list of operations without a deterministic form."""
    operator = build_operator(table, name, dims, channels=4)
    with Calls() as calls:
        output = operator(*(x.requires_grad_() for x in example_inputs(table, 4, (8,) * dims, batch=2)))
        output.sum().backward()
    return not any(NONDETERMINISTIC.search(called) for called in calls.names)


def first_sentence(cls: type) -> str:
    text = " ".join((inspect.getdoc(cls) or "").split())
    return re.split(r"(?<=[.:])\s", text)[0].rstrip(".:")


def source(cls: type) -> str:
    """The paper a docstring names, the class's own or its module's."""
    module = inspect.getmodule(cls)
    texts = [(inspect.getdoc(cls) or "").partition("Source:")[2], inspect.getdoc(module) or ""]
    for text in (" ".join(text.split()) for text in texts):
        author = re.search(r"[A-Z]\w+(?: (?:&|et al\.)(?: [A-Z]\w+)?)?(?: et al\.)? \d{4}", text)
        if author:
            link = re.search(r"https?://[^\s,;)]+", text)
            return f"[{author[0]}]({link[0].rstrip('.')})" if link else author[0]
    raise UserError(f"{cls.__name__}: its docstring names no paper (Source: Author et al. YEAR, https://...)")


def options(cls: type) -> str:
    """Return an operator's own options with their defaults, ``kernel_size=3``."""
    parameters = inspect.signature(cls).parameters.values()
    own = [one for one in parameters if one.default is not one.empty and one.name not in INHERITED]
    defaults = {one.name: "" if one.default is None else f"={str(one.default).replace(' ', '')}" for one in own}
    return " ".join(f"`{name}{default}`" for name, default in defaults.items())


def rows(key: str, table: Registry) -> Iterator[str]:
    yield f"| `{key}` | what it does | 1-D 2-D 3-D | parameters | MFLOP | field | CUDA | options | source |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, cls in table.items():
        if name == "none":
            continue
        dims = supported_dims(table, name)
        exact = [n for n in dims if deterministic(table, name, n)]
        aliases = "".join(f", `{alias}`" for alias, of in table.aliases.items() if of == name)
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


def table() -> str:
    """The three tables, one under the other."""
    return "\n\n".join("\n".join(rows(key, registry)) for key, registry in TABLES.items())


def updated(readme: str) -> str:
    """The README with the tables as they should be."""
    return replace_block(readme, BEGIN, table(), END)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="show the table and leave the README alone")
    if parser.parse_args().print:
        print(table())
    else:
        write_text(README, updated(README.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
