"""Measure receptive fields: the inputs that an output depends on.

Operators declare nothing: each operator and block is run on short signals in which one sample at a time is changed, and
the outputs that change are recorded. The resulting intervals are then chained through the network, one axis at a time;
the receptive field is the box that they span. Source of the arithmetic:
Araujo et al. 2019, Computing receptive fields, https://distill.pub/2019/computing-receptive-fields.
"""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.encoders import TimmEncoder
from unet.network.model import UNet, per_stage
from unet.network.skips import SKIPS

Field = tuple[float, ...]
Interval = tuple[float, float]
"""First and last sample, both included; infinite if a position depends on the whole input."""

SIGNAL_LENGTHS = (16, 64, 256)
"""Lengths tried, in coarse samples: an interval that fills even the last one is taken for unlimited."""
FEATURE_SIGNAL_LENGTHS = (512, 2048)
"""The same for the feature maps of an encoder of timm, in samples of the image."""
BACKGROUNDS = 8
"""Random signals in which each sample is changed: the position of a maximum depends on the other samples."""
BATCH = 4
"""Samples that are changed in one call, which limits the memory of long signals."""
DISTURBANCES = (1e3, -1e3)
"""Large, so that each can become the maximum; not NaN, which would propagate through weights of zero."""


@dataclass(frozen=True)
class InputInterval:
    """The inputs ``(j // up) * down + first[j % up]`` to ``... + last[j % up]`` of output j, along one axis."""

    down: int
    up: int
    first: tuple[float, ...]
    last: tuple[float, ...]

    def inputs(self, outputs: Interval) -> Interval:
        """Return the inputs that any of the outputs depends on."""
        if not all(map(math.isfinite, outputs)):
            return outputs  # everything or nothing
        ends = [divmod(j, self.up) for j in range(int(outputs[0]), int(outputs[1]) + 1)]
        return (
            min(i * self.down + self.first[phase] for i, phase in ends),
            max(i * self.down + self.last[phase] for i, phase in ends),
        )


def measure_interval(
    call: Callable[[Tensor], Tensor], channels: int, block: Sequence[int], outputs: int, axis: int
) -> InputInterval:
    """Return the inputs of ``call`` that an output depends on along ``axis``; from inf to -inf if there are none.

    ``call``, (B, channels, *S) -> (B, any, *S'), yields ``outputs`` samples along ``axis`` per block of its input.
    """
    inputs = block[axis]

    def middle_depends(blocks: int, samples: Sequence[int]) -> Tensor:
        """Return (outputs, samples): which samples of a signal each output of its middle block depends on."""
        size = [*block]
        size[axis] = blocks * inputs
        middle = slice(blocks // 2 * outputs, (blocks // 2 + 1) * outputs)
        parts = [samples[first : first + BATCH] for first in range(0, len(samples), BATCH)]
        return torch.cat([changed_outputs(call, channels, size, part, axis)[:, middle] for part in parts]).T

    for blocks in SIGNAL_LENGTHS:
        n = blocks * inputs
        if middle_depends(blocks, [0, n - 1]).any():  # the interval may be longer than the signal
            continue
        depends = middle_depends(blocks, range(n))
        offsets = torch.arange(float(n)) - blocks // 2 * inputs
        first = torch.where(depends, offsets, math.inf).amin(1).tolist()
        last = torch.where(depends, offsets, -math.inf).amax(1).tolist()
        return InputInterval(inputs, outputs, tuple(first), tuple(last))
    return InputInterval(inputs, outputs, (-math.inf,) * outputs, (math.inf,) * outputs)


@torch.no_grad()
def changed_outputs(
    call: Callable[[Tensor], Tensor], channels: int, size: Sequence[int], samples: Sequence[int], axis: int
) -> Tensor:
    """Return (samples, outputs along ``axis``): which outputs of a signal of ``size`` change with each sample."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(BACKGROUNDS, channels, *size, generator=generator, dtype=torch.float64)
    values = torch.tensor(DISTURBANCES, dtype=torch.float64)
    # A copy of every signal for each value and each sample that takes it: (signals, values, samples, C, *size).
    copies = signals[:, None, None].repeat(1, len(values), len(samples), *[1] * (signals.ndim - 1))
    along_axis = copies.movedim(4 + axis, 3)
    along_axis[:, :, range(len(samples)), samples] = values.view(-1, *[1] * (signals.ndim - 1))
    changed = call(copies.flatten(0, 2)).unflatten(0, copies.shape[:3]) != call(signals)[:, None, None]
    return changed.movedim(4 + axis, 3).flatten(4).any(4).any(1).any(0)


def measure_module(name: str, call: Callable[[Tensor], Tensor], *arguments: Any) -> InputInterval:
    """Return :func:`measure_interval` of a module. Raises UserError if none of its outputs depends on its input."""
    interval = measure_interval(call, *arguments)
    if min(interval.first) == math.inf:
        raise UserError(f"{name}: its output does not depend on its input, so it has no receptive field; correct it")
    return interval


def measure_features(encoder: TimmEncoder, axis: int) -> list[InputInterval]:
    """Return the inputs that a sample of each feature map of an encoder of timm depends on along ``axis``.

    The gradient of a sample in the middle, over all channels, is not zero at these inputs. Every path contributes to it
    at random weights, once no normalization has a weight of zero, as timm gives to the last ones of residual blocks.
    """
    total = math.prod(encoder.strides)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            torch.nn.init.ones_(parameter)
    intervals: list[InputInterval] = []
    for length in FEATURE_SIGNAL_LENGTHS:
        size = [total, total]
        size[axis] = length
        image = torch.randn(2, encoder.scale.shape[1], *size, generator=generator, dtype=torch.float64)
        maps = encoder(image.requires_grad_())
        intervals = []
        for features, stride in zip(maps, itertools.accumulate(encoder.strides, operator.mul), strict=True):
            centre = features.shape[2 + axis] // 2
            (gradient,) = torch.autograd.grad(features.select(2 + axis, centre).sum(), image, retain_graph=True)
            inputs = gradient.movedim(2 + axis, 0).flatten(1).any(1).nonzero()
            first, last = int(inputs.min()), int(inputs.max())
            if first == 0 or last == length - 1:
                break
            intervals.append(InputInterval(stride, 1, (first - centre * stride,), (last - centre * stride,)))
        if len(intervals) == len(maps):
            return intervals
    unlimited = [InputInterval(stride, 1, (-math.inf,), (math.inf,)) for stride in encoder.strides]
    return intervals + unlimited[len(intervals) :]


class AxisFields:
    """The receptive fields along one axis, in samples of the input, of :func:`narrow_network`'s result ``net``."""

    def __init__(self, settings: Mapping[str, Any], net: UNet, axis: int):
        self.net, self.depth = net, len(net.strides)
        self.strides = [stride[axis] for stride in net.strides]
        pixel = (1,) * net.spatial_dims
        self.stem = measure_module("stem", net.stem, net.in_channels, pixel, 1, axis)
        self.context = measure_module("context", net.context, net.widths[-1], pixel, 1, axis)
        self.downs, self.encoder, self.ups, self.guides, self.decoder = ([] for _ in range(5))
        # Of a timm encoder: the intervals of its levels, from the image on.
        self.features = measure_features(net.encoder, axis) if isinstance(net.encoder, TimmEncoder) else []
        down, up = (per_stage(key, settings.get(key), self.depth) for key in ("down", "up"))
        stages = list(zip(down, up, net.strides, strict=True))
        for level, stride in enumerate(net.strides):
            first = stages.index(stages[level])
            if first < level:  # identical stages are measured once
                for intervals in (self.downs, self.encoder, self.ups, self.guides, self.decoder):
                    intervals += intervals[first : first + 1]  # a timm encoder has no intervals of stages
                continue
            fine, coarse = net.widths[level : level + 2]
            joined = SKIPS[net.skip].factor * fine
            up = partial(apply_up, net.ups[level], stride, fine, coarse)
            if isinstance(net.encoder, nn.ModuleList):
                self.downs.append(measure_module(f"downs.{level}", net.downs[level], fine, stride, 1, axis))
                self.encoder.append(measure_module(f"encoder.{level}", net.encoder[level], fine, pixel, 1, axis))
            self.ups.append(measure_module(f"ups.{level}", partial(up, "x"), coarse, pixel, stride[axis], axis))
            self.guides.append(measure_interval(partial(up, "skip"), fine, stride, stride[axis], axis))
            self.decoder.append(measure_module(f"decoder.{level}", net.decoder[level], joined, pixel, 1, axis))

    def encoded(self, level: int, outputs: Interval = (0, 0)) -> Interval:
        """Return the inputs that the encoder's outputs at ``level`` depend on."""
        if self.features and level:
            return self.features[level - 1].inputs(outputs)
        for finer in reversed(range(level)):
            outputs = self.downs[finer].inputs(self.encoder[finer].inputs(outputs))
        return self.stem.inputs(outputs)

    def decoded(self, level: int, outputs: Interval) -> Interval:
        """Return the same for the decoder's output, which at the last level is that of the context module."""
        if level == self.depth:
            return self.encoded(level, self.context.inputs(outputs))
        outputs = self.decoder[level].inputs(outputs)
        return self.joined(level, outputs)

    def joined(self, level: int, outputs: Interval) -> Interval:
        """Return the same for the input of the decoder's block: the upsampled features and the skip."""
        upsampled = self.upsampled(level, outputs)
        return upsampled if self.net.skip == "none" else union(upsampled, self.encoded(level, outputs))

    def upsampled(self, level: int, outputs: Interval) -> Interval:
        """Return the same for the up operator's output."""
        inputs = self.decoded(level + 1, self.ups[level].inputs(outputs))
        return union(inputs, self.encoded(level, self.guides[level].inputs(outputs)))

    def downsampled(self, level: int) -> Interval:
        """Return the same for one sample of the output of the down operator from ``level``."""
        return self.encoded(level, self.downs[level].inputs((0, 0)))

    def widest(self, inputs: Callable[[int, Interval], Interval], level: int) -> float:
        """Return the largest field of any output at ``level`` of the decoder: fields differ with the phase."""
        phases = range(math.prod(self.strides[level:]))
        return max(interval_length(inputs(level, (phase, phase))) for phase in phases)


def apply_up(up: nn.Module, stride: Sequence[int], fine: int, coarse: int, argument: str, value: Tensor) -> Tensor:
    """Apply an up operator to ``value`` as its ``x`` or ``skip``; the other argument is random and constant."""
    is_skip = argument == "skip"
    size = [n // r if is_skip else n * r for n, r in zip(value.shape[2:], stride, strict=True)]
    generator = torch.Generator().manual_seed(1)
    constant = torch.randn(1, coarse if is_skip else fine, *size, generator=generator, dtype=value.dtype)
    constant = constant.expand(len(value), *constant.shape[1:])
    return up(constant, value) if is_skip else up(value, constant)


def union(a: Interval, b: Interval) -> Interval:
    """Return the smallest interval that contains both."""
    return min(a[0], b[0]), max(a[1], b[1])


def interval_length(interval: Interval) -> float:
    """Return the number of samples of an interval."""
    return interval[1] - interval[0] + 1


def narrow_network(settings: Mapping[str, Any]) -> UNet:
    """Build the network of ``settings`` with two channels a level, which has the same receptive fields.

    Its activation never saturates: a dead ReLU would hide the inputs behind it.
    """
    width = [2] * (settings.get("depth", 4) + 1) if settings.get("encoder", "none") == "none" else 2
    net = UNet(**{**settings, "width": width, "in_channels": 1, "num_classes": 1, "act": "leaky_relu"})
    return net.double().eval()


@dataclass(frozen=True)
class ReceptiveFields:
    """Receptive fields per axis, in samples of the input; infinite if unlimited. Lists run from fine to coarse.

    Attributes:
        encoder: of the encoder's output at every level; the last is the bottleneck's.
        downs: of every down operator's output; empty for an encoder of timm.
        context: of the context module's output.
        ups, joins, decoder: of the up operators', of the skip connections' and of the decoder's outputs, the largest of
            any sample.
        logits: of a logit.
    """

    encoder: list[Field]
    downs: list[Field]
    context: Field
    ups: list[Field]
    joins: list[Field]
    decoder: list[Field]

    @property
    def logits(self) -> Field:
        return self.decoder[0] if self.decoder else self.context


def receptive_fields(settings: Mapping[str, Any]) -> ReceptiveFields:
    """Measure the receptive fields of ``UNet(**settings)``."""
    net = narrow_network(settings)
    axes = [AxisFields(settings, net, axis) for axis in range(net.spatial_dims)]
    depth = len(net.strides)
    return ReceptiveFields(
        encoder=[tuple(interval_length(axis.encoded(level)) for axis in axes) for level in range(depth + 1)],
        downs=[tuple(interval_length(axis.downsampled(n)) for axis in axes) for n in range(len(net.downs))],
        context=tuple(interval_length(axis.decoded(depth, (0, 0))) for axis in axes),
        ups=[tuple(axis.widest(axis.upsampled, level) for axis in axes) for level in range(depth)],
        joins=[tuple(axis.widest(axis.joined, level) for axis in axes) for level in range(depth)],
        decoder=[tuple(axis.widest(axis.decoded, level) for axis in axes) for level in range(depth)],
    )
