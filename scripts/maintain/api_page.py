"""Write docs/api.md from the docstrings of the public names."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from unet import CONTEXT, DOWN, UP, UNet, load
from unet.inference.segmenter import Segmenter
from unet.io.atomic import write_text
from unet.io.provenance import ROOT
from unet.network.registry import Registry

PAGE = ROOT / "docs" / "api.md"
HEAD = """# Python API

This page is generated from the docstrings by `python scripts/maintain/api_page.py`. All of it needs torch alone.

```python
from unet import CONTEXT, DOWN, UP, UNet, load
```
"""
FACTORIES = {
    "DOWN": "(channels, spatial_dims, stride, **options): x (B, C, *rS) -> (B, C, *S)",
    "UP": "(in_channels, out_channels, spatial_dims, stride, **options): x (B, Cin, *S), skip (B, Cout, *rS) -> "
    "(B, Cout, *rS)",
    "CONTEXT": "(channels, spatial_dims, **options): x (B, C, *S) -> (B, C, *S)",
}


def function_section(name: str, function: Callable[..., Any]) -> str:
    """Return the Markdown of a function or class: its signature and its docstring."""
    text = f"{name}{format_signature(inspect.signature(function))}"
    return f"## `{name}`\n\n```python\n{text}\n```\n\n```text\n{inspect.getdoc(function)}\n```\n"


def format_signature(signature: inspect.Signature) -> str:
    """Return a signature without ``self``, ``**kwargs`` and module names, one parameter per line if it is long."""
    hidden = inspect.Parameter.VAR_KEYWORD
    parameters = [p for p in signature.parameters.values() if p.name != "self" and p.kind is not hidden]
    line = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", str(signature.replace(parameters=parameters)))
    if len(line) <= 90:
        return line
    arguments, _, output = line[1:].rpartition(")")
    return "(\n" + "".join(f"    {text},\n" for text in re.split(r", (?=\w+:|\*)|(?<=\*), ", arguments)) + f"){output}"


def registry_section(name: str, registry: Registry) -> str:
    """Return the Markdown of a registry: the factory of its operators, and the first sentence of every docstring."""
    lines = []
    for key, operator in registry.items():
        aliases = [alias for alias, target in registry.aliases.items() if target == key]
        names = ", ".join(f"`{text}`" for text in (key, *aliases))
        lines.append(f"| {names} | {first_sentence(operator)} |")
    table = "\n".join(["| name | operator |", "|---|---|", *lines])
    return f"## `{name}`\n\nFactory and shapes of an operator:\n\n```text\n{FACTORIES[name]}\n```\n\n{table}\n"


def first_sentence(cls: type) -> str:
    """Return the first sentence of a class's docstring."""
    return re.split(r"(?<=[.:])\s", " ".join((inspect.getdoc(cls) or "").split()))[0].rstrip(".:")


def api_page() -> str:
    """Return the current page."""
    functions = {"UNet": UNet, "load": load, "Segmenter.predict": Segmenter.predict}
    registries = {"DOWN": DOWN, "UP": UP, "CONTEXT": CONTEXT}
    sections = [function_section(name, function) for name, function in functions.items()]
    return "\n".join([HEAD, *sections, *(registry_section(name, registry) for name, registry in registries.items())])


if __name__ == "__main__":
    write_text(PAGE, api_page())
