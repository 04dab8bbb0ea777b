"""A network level by level: sizes with their formula, strides, receptive fields, parameters, FLOPs and memory.

The network is built on torch's meta device: nothing is computed, so any size is described at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unet.analysis.activation_memory import track_saved_tensors
from unet.analysis.receptive_field import Field, ReceptiveFields, receptive_fields
from unet.network.geometry import count_parameters, padding_to_multiple, times
from unet.network.model import SMALL_BOTTLENECK, UNet
from unet.network.registry import operator_name

Size = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """One part of the network, in the order of the forward pass.

    Attributes:
        name: its name in the state dict, such as ``downs.0``.
        operator: what it is, as the config says it.
        size_in, size: samples along every axis, before and after.
        formula: how ``size`` follows from ``size_in``; empty where it stays.
        stride: samples of the (padded) input from one of its samples to the next.
        field: its receptive field in samples of the input, the widest of any of its samples.
        channels: of its output.
        parameters: trainable ones.
        flops: of one image's forward pass, a multiply-add counting two; pooling, norms and interpolation count none.
        memory: bytes an image keeps for the backward pass in float32, beyond the parameters.
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
    """Attributes: input channels and size, padding (before, after) along each axis, stages, fields, what to mind."""

    in_channels: int
    size: Size
    padding: list[tuple[int, int]]
    layers: list[LayerSummary]
    fields: ReceptiveFields
    warnings: list[str]

    @property
    def parameters(self) -> int:
        return sum(stage.parameters for stage in self.layers)

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage in self.layers)

    @property
    def memory(self) -> int:
        return sum(stage.memory for stage in self.layers)


def to_metrics(found: NetworkSummary) -> dict[str, Any]:
    """What ``metrics.json`` says of a network: totals, the bottleneck's receptive field, and every stage."""

    def seen(field: Field) -> list[int | str]:
        return ["all" if math.isinf(n) else int(n) for n in field]

    stages = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(stage).items()}
        | {"field": seen(stage.field)}
        for stage in found.layers
    ]
    return {
        "model/parameters": found.parameters,
        "model/flops": found.flops,
        "model/flops_input": "x".join(map(str, (found.in_channels, *found.size))),
        "model/activation_bytes": found.memory,
        "model/receptive_field": seen(found.fields.encoder[-1]),
        "model/stages": stages,
    }


COLUMNS = ("part", "operator", "size", "channels", "stride", "field", "share", "parameters", "MFLOP", "MiB")


def table_rows(found: NetworkSummary) -> list[tuple[str, ...]]:
    """The stages for eyes, one tuple a stage with a text for each of ``COLUMNS``; the share is of the input's size."""
    shares = [[min(1.0, field / n) for field, n in zip(s.field, found.size, strict=True)] for s in found.layers]
    return [
        (
            stage.name,
            stage.operator,
            times(stage.size),
            str(stage.channels),
            times(stage.stride),
            times(stage.field),
            " x ".join(f"{part:.0%}" for part in share),
            f"{stage.parameters:,}",
            f"{stage.flops / 1e6:,.1f}",
            f"{stage.memory / 2**20:,.1f}",
        )
        for stage, share in zip(found.layers, shares, strict=True)
    ]


def markdown(found: NetworkSummary) -> str:
    """The stages as a table and the formulas of their sizes, for TensorBoard's text tab."""
    table = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ("---",) * len(COLUMNS), *table_rows(found))]
    return "\n".join([*table, "", *(f"- {stage.name}: {stage.formula}" for stage in found.layers if stage.formula)])


def summarize_network(
    settings: Mapping[str, Any], size: Sequence[int], batch: int = 1, object_size: int | None = None
) -> NetworkSummary:
    """Take ``UNet(**settings)`` apart for images of (in_channels, *size).

    Args:
        settings: the network's arguments.
        size: samples along every axis.
        batch: images in a training batch: batch norm refuses a bottleneck of a single value.
        object_size: samples across the objects that matter.

    Raises:
        UserError: settings or a size that the network refuses.
    """
    size = tuple(size)
    with torch.device("meta"):
        net = UNet(**settings)
        image = torch.empty(batch, net.in_channels, *size)
    net.check(image)
    shapes: dict[str, tuple[Size, Size, int]] = {}
    memory: dict[str, int] = {}
    names = [name for name, _ in parts(net)]
    with record_forward(net, names, shapes, memory):
        net(image)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image[:1])
    flops = counter.get_flop_counts()
    fields = receptive_fields(settings)
    stages = []
    for name in shapes:  # in the order in which they ran
        part = net.get_submodule(name)
        size_in, size_out, channels = shapes[name]
        stages.append(
            LayerSummary(
                name=name,
                operator=role(part),
                size_in=size_in,
                size=size_out,
                formula=",  ".join(dict.fromkeys(size_formulas(part, size_in, size_out))),
                stride=tuple(math.prod(axis) for axis in zip(*net.strides[: level_of(name, net)], strict=True))
                or (1,) * net.spatial_dims,
                field=field_of(name, fields),
                channels=channels,
                parameters=count_parameters(part),
                flops=sum(flops.get(f"UNet.{name}", {}).values()),
                memory=memory.get(name, 0) // batch,
            )
        )
    padding = padding_to_multiple(size, net.total_stride)
    result = NetworkSummary(net.in_channels, size, padding, stages, fields, [])
    return replace(result, warnings=list(warnings_for(result, object_size)))


def parts(net: UNet) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network that stages are made of."""
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", part) for index, part in enumerate(child))
        else:
            yield name, child


def level_of(name: str, net: UNet) -> int:
    """The level of a part's output: 0 is the finest."""
    kind, _, index = name.partition(".")
    if kind in ("downs", "encoder"):
        return int(index) + 1
    if kind in ("ups", "decoder"):
        return int(index)
    return len(net.strides) if kind == "context" else 0


def field_of(name: str, fields: ReceptiveFields) -> Field:
    kind, _, index = name.partition(".")
    match kind:
        case "stem":
            return fields.encoder[0]
        case "encoder":
            return fields.encoder[int(index) + 1]
        case "downs":
            return fields.downs[int(index)]
        case "ups":
            return fields.ups[int(index)]
        case "decoder":
            return fields.decoder[int(index)]
        case "context":
            return fields.context
    return fields.logits


def role(part: nn.Module) -> str:
    """An operator's name as the config says it; ``block`` and ``head`` for what is no choice."""
    convolution = isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return operator_name(part) or ("head" if convolution else "block")


def size_formulas(part: nn.Module, size_in: Size, size: Size) -> Iterator[str]:
    """Along every axis, the size out written as ``floor((n + 2p - d(k - 1) - 1) / s) + 1`` or what it is instead."""
    window = next((module for module in part.modules() if strides(module)), None)
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


def strides(module: nn.Module) -> bool:
    """Whether a module is a convolution or a pooling window that changes the resolution."""
    return hasattr(module, "padding") and max(as_tuple(getattr(module, "stride", 1), 1)) > 1


def as_tuple(value: Any, length: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * length


@contextmanager
def record_forward(
    net: UNet, names: Sequence[str], shapes: dict[str, tuple[Size, Size, int]], memory: dict[str, int]
) -> Iterator[None]:
    """While it lasts, note the shapes that pass through each part and the bytes it keeps for the backward pass."""
    running = ["head"]

    def enter(name: str):
        return lambda module, args: running.append(name)

    def leave(name: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            running.pop()
            shapes[name] = tuple(args[0].shape[2:]), tuple(output.shape[2:]), output.shape[1]

        return hook

    def note(size: int) -> None:
        memory[running[-1]] = memory.get(running[-1], 0) + size

    hooks = []
    for name in names:
        part = net.get_submodule(name)
        hooks += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave(name))]
    try:
        with track_saved_tensors(note, [*net.parameters(), *net.buffers()]):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def warnings_for(found: NetworkSummary, object_size: int | None) -> Iterator[str]:
    """What to mind, in sentences."""
    bottleneck = next(stage for stage in found.layers if stage.name == "context")
    if min(bottleneck.size) < SMALL_BOTTLENECK:
        yield (
            f"the bottleneck is {times(bottleneck.size)}: below {SMALL_BOTTLENECK} samples an axis small objects "
            f"vanish; consider a smaller model.depth or larger crops"
        )
    if object_size is not None and min(found.fields.encoder[-1]) < object_size:
        yield (
            f"the bottleneck sees {times(found.fields.encoder[-1])} samples, less than an object of {object_size}: "
            f"consider a larger model.depth, model.context=spp, or smaller images"
        )
