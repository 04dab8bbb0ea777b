"""``nearest`` as it is computed beside what it means, resizing and then a convolution: time and difference."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from unet import stage
from unet.benchmark.forms import PLAIN, Form
from unet.benchmark.operators import Stage, Subject
from unet.benchmark.timing import measure, median_ratio
from unet.hardware import native_bf16
from unet.model import UP
from unet.ops.interpolation import ResizeConv
from unet.stage import STRIDE

Results = Callable[[], list[Tensor | None]]
"""A forward and backward pass: the output, then the gradients."""
LEVELS = (4, 2, 1)
"""The stage's channels are multiplied and its size is divided by these: three levels of one network, coarse to fine."""


@dataclass(frozen=True)
class Folded:
    """Forward and backward pass at one level in one form. Times are medians in ms, the ratio that of the rounds.

    The differences are the largest of the output and of the gradients of input and parameters, each relative to the
    largest value of the plain form's.
    """

    in_channels: int
    size: tuple[int, ...]
    form: str
    plain_ms: float
    folded_ms: float
    ratio: float
    output_difference: float
    gradient_difference: float


def compare_folded(place: Stage, rounds: int) -> list[Folded]:
    """Both forms at every level, on (batch, channels, *size) and coarser, in fp32 and, where native, in bf16."""
    cases = product(LEVELS, forms(place.device, len(place.size)))
    present = {(level, form): both_forms(place, level, form) for level, form in cases}
    calls: dict[tuple[int, Form, str], Callable[[], object]] = {}
    for key, (folded, plain) in present.items():
        calls[*key, "folded"], calls[*key, "plain"] = folded, plain
    timings = measure(calls, rounds, say=True)
    found = []
    for (level, form), (folded, plain) in present.items():
        own, reference = timings[level, form, "folded"], timings[level, form, "plain"]
        output, *gradients = differences(folded(), plain())
        found.append(
            Folded(
                2 * max(1, level * place.channels // 2),
                coarse_size(place, level),
                str(form),
                statistics.median(reference),
                statistics.median(own),
                median_ratio(own, reference),
                output,
                max(gradients),
            )
        )
    return found


def forms(device: str, spatial_dims: int) -> list[Form]:
    """The forms compared: fp32 in both layouts, and bf16 channels_last where that is native."""
    last = spatial_dims > 1
    found = [PLAIN, Form(channels_last=last)]
    if native_bf16(device):
        found.append(Form(torch.bfloat16, channels_last=last))
    return list(dict.fromkeys(found))


def coarse_size(place: Stage, level: int) -> tuple[int, ...]:
    return tuple(max(1, n // level) for n in place.size)


def both_forms(place: Stage, level: int, form: Form) -> tuple[Results, Results]:
    """The folded and the plain form of one operator."""
    fine = tuple(STRIDE * n for n in coarse_size(place, level))
    here = replace(place, channels=max(1, level * place.channels // 2), size=fine, form=form)
    operator = stage.build(UP, "nearest", len(fine), here.channels)
    assert isinstance(operator, ResizeConv)
    measured = Subject(operator, here.inputs(UP), form)
    return measured.training, lambda: measured.training(lambda x, skip: operator.plain(x))


def differences(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> list[float]:
    """The largest difference of each pair, relative to the largest value expected; the skip has no gradient."""
    pairs = [(a.float(), b.float()) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
