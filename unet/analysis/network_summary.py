"""Summarize a network layer by layer: sizes, strides, receptive fields, parameters, FLOPs and memory.

The network is built on torch's meta device: nothing is computed, so images of any size are summarized at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unet.analysis.activation_memory import track_saved_tensors
from unet.analysis.receptive_field import Field, ReceptiveFields, receptive_fields
from unet.network.encoders import TimmEncoder
from unet.network.geometry import count_parameters, padding_to_multiple, times
from unet.network.model import SMALL_BOTTLENECK, UNet
from unet.network.registry import operator_name

Size = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """The figures of one layer (a block or an operator) of the network.

    Attributes:
        name: its name in the state dict, such as ``downs.0``.
        formula: how ``size`` follows from ``size_in``; empty where it is the same.
        stride: distance between neighbouring outputs, in samples of the (padded) image.
        field: the largest receptive field of any of its outputs, in samples of the image.
        flops: of one image's forward pass, a multiply-add counting two; pooling, norms and interpolation count none.
        memory: bytes saved for the backward pass in float32 per image, without the parameters.
    """

    name: str
    operator: str
    size_in: Size
    size: Size
    formula: str
    stride: Size
    field: Field
    channels: int
    parameters: int
    flops: int
    memory: int = 0


@dataclass(frozen=True)
class NetworkSummary:
    """The summary of a network: ``padding`` (before, after) along each axis, ``layers`` in the order they are run."""

    in_channels: int
    size: Size
    padding: list[tuple[int, int]]
    layers: list[LayerSummary]
    fields: ReceptiveFields
    warnings: list[str]
    checkpointing: bool = False

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def memory(self) -> int:
        """Return the bytes kept for the backward pass; with checkpointing the stages' outputs and the largest stage."""
        if not self.checkpointing:
            return sum(layer.memory for layer in self.layers)
        stages: dict[str | None, list[LayerSummary]] = {}
        for layer in self.layers:
            stages.setdefault(stage_name(layer.name), []).append(layer)
        kept = sum(layer.memory for layer in stages.pop(None, []))
        kept += sum(4 * layers[-1].channels * math.prod(layers[-1].size) for layers in stages.values())
        return kept + max(sum(layer.memory for layer in layers) for layers in stages.values())


def to_metrics(summary: NetworkSummary) -> dict[str, Any]:
    """Return the entries of ``metrics.json``: totals, the bottleneck's receptive field, and every layer."""

    def to_json(field: Field) -> list[int | str]:
        return ["all" if math.isinf(n) else int(n) for n in field]

    layers = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(layer).items()}
        | {"field": to_json(layer.field)}
        for layer in summary.layers
    ]
    return {
        "model/parameters": summary.parameters,
        "model/flops": summary.flops,
        "model/flops_input": "x".join(map(str, (summary.in_channels, *summary.size))),
        "model/activation_bytes": summary.memory,
        "model/receptive_field": to_json(summary.fields.encoder[-1]),
        "model/stages": layers,
    }


COLUMNS = ("part", "operator", "size", "channels", "stride", "field", "share", "parameters", "MFLOP", "MiB")


def table_rows(summary: NetworkSummary) -> list[tuple[str, ...]]:
    """Format the layers as rows of ``COLUMNS``; ``share`` is the receptive field as a fraction of the input's size."""
    return [
        (
            layer.name,
            layer.operator,
            times(layer.size),
            str(layer.channels),
            times(layer.stride),
            times(layer.field),
            " x ".join(f"{min(1.0, field / n):.0%}" for field, n in zip(layer.field, summary.size, strict=True)),
            f"{layer.parameters:,}",
            f"{layer.flops / 1e6:,.1f}",
            f"{layer.memory / 2**20:,.1f}",
        )
        for layer in summary.layers
    ]


def to_markdown(summary: NetworkSummary) -> str:
    """Format the layers as a table with the formulas of their sizes, for TensorBoard's text tab."""
    table = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ("---",) * len(COLUMNS), *table_rows(summary))]
    return "\n".join([*table, "", *(f"- {layer.name}: {layer.formula}" for layer in summary.layers if layer.formula)])


def summarize_network(
    settings: Mapping[str, Any], size: Sequence[int], batch: int = 1, object_size: int | None = None
) -> NetworkSummary:
    """Summarize ``UNet(**settings)`` for images of (in_channels, *size). Raises UserError if either is invalid.

    ``batch``: images of a training batch; batch norm cannot normalise a bottleneck of a single value. ``object_size``:
    the size of the objects to segment, in samples.
    """
    size = tuple(size)
    with torch.device("meta"):
        net = UNet(**{**settings, "checkpointing": False})  # the memory of every layer
        image = torch.empty(batch, net.in_channels, *size)
    net.check(image)
    shapes: dict[str, tuple[Size, Size, int]] = {}
    memory: dict[str, int] = {}
    with record_forward(net, shapes, memory):
        net(image)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image[:1])
    flops = counter.get_flop_counts()
    fields = receptive_fields(settings)
    kinds = {"head": "head", "coarse_heads": "head", "joins": net.skip, "encoder": net.encoder_name or "block"}
    layers = []
    for name, (size_in, size_out, channels) in shapes.items():  # in the order of the forward pass
        module = net.get_submodule(name)
        level, field = level_and_field(name, net, fields)
        layers.append(
            LayerSummary(
                name=name,
                operator=operator_name(module) or kinds.get(name.partition(".")[0], "block"),
                size_in=size_in,
                size=size_out,
                formula=",  ".join(dict.fromkeys(size_formulas(module, size_in, size_out))),
                stride=tuple(math.prod(axis) for axis in zip(*net.strides[:level], strict=True))
                or (1,) * net.spatial_dims,
                field=field,
                channels=channels,
                parameters=count_parameters(module),
                flops=sum(flops.get(f"UNet.{name}", {}).values()),
                memory=memory.get(name, 0) // batch,
            )
        )
    padding = padding_to_multiple(size, net.total_stride)
    warnings = list(warnings_for(layers, fields, object_size))
    return NetworkSummary(net.in_channels, size, padding, layers, fields, warnings, bool(settings.get("checkpointing")))


def stage_name(layer: str) -> str | None:
    """Return the stage that ``checkpointing`` computes again with a layer; None: the layer's activations are kept."""
    kind, _, level = layer.partition(".")
    if kind == "stem":
        return kind
    if kind in ("downs", "encoder"):
        return f"encoder {level}" if level else None  # an encoder of timm
    return f"decoder {level}" if kind in ("ups", "joins", "decoder") else None


def named_layers(net: UNet) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and the module of every layer, and of every skip connection that has parameters."""
    for name, child in net.named_children():
        if name == "joins" and not count_parameters(child):
            continue
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", module) for index, module in enumerate(child))
        else:
            yield name, child


def level_and_field(name: str, net: UNet, fields: ReceptiveFields) -> tuple[int, Field]:
    """Return the level of a layer's output, 0 the finest, and its receptive field."""
    kind, _, index = name.partition(".")
    level = int(index or 0)
    if name == "encoder":  # all levels of an encoder of timm
        return len(net.strides), fields.encoder[-1]
    match kind:
        case "downs":
            return level + 1, fields.downs[level]
        case "stem":
            return 0, fields.encoder[0]
        case "encoder":
            return level + 1, fields.encoder[level + 1]
        case "context":
            return len(net.strides), fields.context
        case "ups":
            return level, fields.ups[level]
        case "joins":
            return level, fields.joins[level]
        case "decoder":
            return level, fields.decoder[level]
        case "coarse_heads":
            return level + 1, fields.decoder[level + 1]
    return 0, fields.logits


def size_formulas(layer: nn.Module, size_in: Size, size: Size) -> Iterator[str]:
    """Yield the formula of the output's size along every axis, such as ``floor((n + 2p - d(k - 1) - 1) / s) + 1``."""
    windows = [] if isinstance(layer, TimmEncoder) else [module for module in layer.modules() if is_strided(module)]
    window = windows[0] if windows else None
    for axis, (n, m) in enumerate(zip(size_in, size, strict=True)):
        if n == m:
            continue
        r = max(n // m, m // n)
        if window is None:
            yield f"{n} x {r} = {m}" if m > n else f"{n} / {r} = {m}"
            continue
        attributes = ("kernel_size", "stride", "padding", "dilation")
        k, s, p, d = (as_tuple(getattr(window, name, 1), len(size))[axis] for name in attributes)
        if m > n:
            extra = as_tuple(getattr(window, "output_padding", 0), len(size))[axis]
            yield f"({n} - 1) {s} - 2·{p} + {d}({k} - 1) + {extra} + 1 = {m}"
        else:
            yield f"floor(({n} + 2·{p} - {d}({k} - 1) - 1) / {s}) + 1 = {m}"


def is_strided(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a pooling window that changes the resolution."""
    return hasattr(module, "padding") and max(as_tuple(getattr(module, "stride", 1), 1)) > 1


def as_tuple(value: Any, length: int) -> tuple[int, ...]:
    """Return a value per axis as a tuple."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * length


@contextmanager
def record_forward(net: UNet, shapes: dict[str, tuple[Size, Size, int]], memory: dict[str, int]) -> Iterator[None]:
    """Record (input size, output size, channels) of every layer, and the bytes it saves for the backward pass."""
    running = ["head"]

    def make_hooks(name: str):
        def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            running.append(name)

        def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | list[Tensor]) -> None:
            running.pop()
            output = output[-1] if isinstance(output, list) else output  # the coarsest level of a timm encoder
            shapes[name] = tuple(args[0].shape[2:]), tuple(output.shape[2:]), output.shape[1]

        return before, after

    def add_memory(size: int) -> None:
        memory[running[-1]] = memory.get(running[-1], 0) + size

    handles = []
    for name, module in named_layers(net):
        before, after = make_hooks(name)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        with track_saved_tensors(add_memory, [*net.parameters(), *net.buffers()]):
            yield
    finally:
        for handle in handles:
            handle.remove()


def warnings_for(layers: Sequence[LayerSummary], fields: ReceptiveFields, object_size: int | None) -> Iterator[str]:
    """Yield warnings about a small bottleneck, and about objects larger than its receptive field."""
    bottleneck = next(layer for layer in layers if layer.name == "context")
    if min(bottleneck.size) < SMALL_BOTTLENECK:
        yield (
            f"the bottleneck is {times(bottleneck.size)}: with fewer than {SMALL_BOTTLENECK} samples per axis small "
            f"objects are lost; use a smaller model.depth or larger crops"
        )
    field = fields.encoder[-1]
    if object_size is not None and min(field) < object_size:
        yield (
            f"the receptive field of the bottleneck is {times(field)} samples, smaller than an object of "
            f"{object_size}: use a larger model.depth, model.context=spp, or smaller images"
        )
