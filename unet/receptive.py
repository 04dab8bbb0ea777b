"""Receptive fields, found by asking the operators themselves: what does an output change with?

Nothing is declared and nothing can be forgotten: each operator and block is run on short signals in which one sample at
a time is disturbed, and the outputs that change are its reach. Reaches are then chained through the network.
Along one axis at a time; the fields of separable and of dense kernels alike are the boxes these intervals span.
Source of the arithmetic: Araujo et al. 2019, Computing receptive fields, https://distill.pub/2019/computing-receptive-fields.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unet.model import UNet, per_stage

Field = tuple[float, ...]
Interval = tuple[float, float]
"""First and last sample, both included; infinite where a place sees all there is."""

PROBES = (16, 64, 256)
"""Lengths tried, in coarse samples: a reach that fills even the last one is taken for unlimited."""
BACKGROUNDS = 8
"""Random signals each sample is disturbed in: which sample a maximum comes from depends on the others."""
DISTURBANCES = (1e3, -1e3)
"""Large, so that each can become the maximum; not NaN, which would also pass through weights of zero."""


@dataclass(frozen=True)
class Reach:
    """Along one axis: output j depends on inputs ``(j // up) * down + first[j % up]`` to ``... + last[j % up]``."""

    down: int
    up: int
    first: tuple[float, ...]
    last: tuple[float, ...]

    def inputs(self, outputs: Interval) -> Interval:
        """The inputs that any of the outputs depends on."""
        if math.inf in outputs or -math.inf in outputs:
            return -math.inf, math.inf
        ends = [divmod(j, self.up) for j in range(int(outputs[0]), int(outputs[1]) + 1)]
        return (
            min(i * self.down + self.first[phase] for i, phase in ends),
            max(i * self.down + self.last[phase] for i, phase in ends),
        )


@torch.no_grad()
def reach(
    call: Callable[[Tensor], Tensor], channels: int, block: Sequence[int], outputs: int, axis: int
) -> Reach | None:
    """Along ``axis``, the reach of ``call``; None where nothing depends on its input at all.

    Args:
        call: (B, channels, *S) -> (B, any, *S'); every block of its input makes one block of its output.
        block: samples of a block of the input, per axis.
        outputs: samples of a block of the output, along ``axis``.
        axis: 0 to the number of spatial axes - 1.
    """
    inputs = block[axis]
    for blocks in PROBES:
        n, centre = blocks * inputs, blocks // 2
        size = [*block]
        size[axis] = n
        touched = torch.zeros(outputs, n, dtype=torch.bool)  # which inputs each output of the middle block depends on
        generator = torch.Generator().manual_seed(0)
        for _ in range(BACKGROUNDS):
            base = torch.randn(1, channels, *size, generator=generator, dtype=torch.float64)
            before = call(base)
            for value in DISTURBANCES:
                disturbed = base.repeat(n, *[1] * (base.ndim - 1)).movedim(2 + axis, 1)
                disturbed[range(n), range(n)] = value
                changed = call(disturbed.movedim(1, 2 + axis)) != before
                changed = changed.movedim(2 + axis, 1).flatten(2).any(2)  # (input, output)
                touched |= changed[:, centre * outputs : (centre + 1) * outputs].T
        if not touched.any():
            return None
        places = torch.arange(float(n)) - centre * inputs
        first = torch.where(touched, places, math.inf).amin(1).tolist()
        last = torch.where(touched, places, -math.inf).amax(1).tolist()
        if places[0] < min(first) and max(last) < places[-1]:
            return Reach(inputs, outputs, tuple(first), tuple(last))
    return Reach(inputs, outputs, (-math.inf,) * outputs, (math.inf,) * outputs)


class Fields:
    """The receptive fields of a network along one axis, in samples of its input.

    Args:
        net: in double precision and evaluation mode; see :func:`thin`, as a wide one takes long.
        alike: for every stage the first one that looks as far, which may be itself; see :func:`first_alike`.
        axis: 0 to spatial_dims - 1.
    """

    def __init__(self, net: UNet, alike: Sequence[int], axis: int):
        self.net, self.depth = net, len(net.strides)
        self.strides = [stride[axis] for stride in net.strides]
        one = (1,) * net.spatial_dims
        self.stem = heeded(reach(net.stem, net.in_channels, one, 1, axis))
        self.downs, self.encoder, self.ups, self.guides, self.decoder = ([] for _ in range(5))
        for level, stride in enumerate(net.strides):
            if alike[level] < level:
                for parts in (self.downs, self.encoder, self.ups, self.guides, self.decoder):
                    parts.append(parts[alike[level]])
                continue
            fine, coarse = net.widths[level : level + 2]
            joined = net.decoder[level].get_parameter("0.0.weight").shape[1]
            up = partial(up_with, net.ups[level], stride, fine, coarse)
            self.downs.append(heeded(reach(net.downs[level], fine, stride, 1, axis)))
            self.encoder.append(heeded(reach(net.encoder[level], fine, one, 1, axis)))
            self.ups.append(heeded(reach(partial(up, "x"), coarse, one, stride[axis], axis)))
            self.guides.append(reach(partial(up, "skip"), fine, stride, stride[axis], axis))
            self.decoder.append(heeded(reach(net.decoder[level], joined, one, 1, axis)))
        self.context = heeded(reach(net.context, net.widths[-1], one, 1, axis))

    def encoded(self, level: int, samples: Interval = (0, 0)) -> Interval:
        """What ``samples`` of the encoder's output at ``level`` depend on."""
        for finer in reversed(range(level)):
            samples = self.downs[finer].inputs(self.encoder[finer].inputs(samples))
        return self.stem.inputs(samples)

    def decoded(self, level: int, samples: Interval) -> Interval:
        """What ``samples`` of the decoder's output at ``level`` depend on; at the last level, of the context's."""
        if level == self.depth:
            return self.encoded(level, self.context.inputs(samples))
        samples = self.decoder[level].inputs(samples)
        brought = self.brought_up(level, samples)
        return brought if self.net.skip == "none" else union(brought, self.encoded(level, samples))

    def brought_up(self, level: int, samples: Interval) -> Interval:
        """What ``samples`` of the up operator's output at ``level`` depend on."""
        seen = self.decoded(level + 1, self.ups[level].inputs(samples))
        guide = self.guides[level]
        return seen if guide is None else union(seen, self.encoded(level, guide.inputs(samples)))

    def pooled(self, level: int) -> Interval:
        """What a sample of the down operator's output depends on; ``level`` is the one it leaves."""
        return self.encoded(level, self.downs[level].inputs((0, 0)))

    def widest(self, seen: Callable[[int, Interval], Interval], level: int) -> float:
        """The largest field of any sample at ``level`` of the decoder: fields differ with the phase."""
        phases = range(math.prod(self.strides[level:]))
        return max(width(seen(level, (phase, phase))) for phase in phases)


def heeded(found: Reach | None) -> Reach:
    """Of what must look at its input. Raises ValueError for a module that returns the same whatever it is given."""
    if found is None:
        raise ValueError("a module's output does not depend on its input")
    return found


def up_with(up: nn.Module, stride: Sequence[int], fine: int, coarse: int, part: str, given: Tensor) -> Tensor:
    """An up operator as a function of one of its inputs, ``x`` or ``skip``; the other is random and stays."""
    skip_given = part == "skip"
    size = [n // r if skip_given else n * r for n, r in zip(given.shape[2:], stride, strict=True)]
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(1, coarse if skip_given else fine, *size, generator=generator, dtype=given.dtype)
    other = other.expand(len(given), *other.shape[1:])
    return up(other, given) if skip_given else up(given, other)


def union(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def width(interval: Interval) -> float:
    return interval[1] - interval[0] + 1


def thin(settings: Mapping[str, Any]) -> UNet:
    """The network of ``settings`` with two channels a level, which looks as far as the wide one.

    Its activation never saturates: a relu that happens to be dead would hide what lies behind it.
    """
    widths = [2] * (settings.get("depth", 4) + 1)
    net = UNet(**{**settings, "width": widths, "in_channels": 1, "num_classes": 1, "act": "leaky_relu"})
    return net.double().eval()


def first_alike(settings: Mapping[str, Any], net: UNet) -> list[int]:
    """For every stage of the :func:`thin` network, the first one with the same operators and stride."""
    depth = len(net.strides)
    chosen = (per_stage(key, settings.get(key), depth) for key in ("down", "up"))
    kinds = list(zip(*chosen, net.strides, strict=True))
    return [kinds.index(kind) for kind in kinds]


@dataclass(frozen=True)
class ReceptiveFields:
    """Per axis, in samples of the input; infinite where everything is seen. Lists run from fine to coarse.

    Attributes:
        encoder: of the encoder's output at every level; the last is the bottleneck's.
        downs: of every down operator's output.
        context: of the bottleneck with its context.
        ups, decoder: of every up operator's and of the decoder's output, the widest of any sample's.
        logits: of a logit.
    """

    encoder: list[Field]
    downs: list[Field]
    context: Field
    ups: list[Field]
    decoder: list[Field]

    @property
    def logits(self) -> Field:
        return self.decoder[0] if self.decoder else self.context


def receptive_fields(settings: Mapping[str, Any]) -> ReceptiveFields:
    """The receptive fields of ``UNet(**settings)``."""
    net = thin(settings)
    alike = first_alike(settings, net)
    axes = [Fields(net, alike, axis) for axis in range(net.spatial_dims)]
    depth = len(net.strides)
    return ReceptiveFields(
        encoder=[tuple(width(axis.encoded(level)) for axis in axes) for level in range(depth + 1)],
        downs=[tuple(width(axis.pooled(level)) for axis in axes) for level in range(depth)],
        context=tuple(width(axis.decoded(depth, (0, 0))) for axis in axes),
        ups=[tuple(axis.widest(axis.brought_up, level) for axis in axes) for level in range(depth)],
        decoder=[tuple(axis.widest(axis.decoded, level) for axis in axes) for level in range(depth)],
    )
