"""What of the image each level of the encoder still holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.diagnostics.best_effort import skip_on_error
from unet.errors import UserError
from unet.task.module import SegmentationTask

Array = np.ndarray
IMAGES = 128
RIDGES = [10.0**power for power in range(-6, 2)]
"""Penalties tried, in units of the features' mean variance."""


def information(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """How much of the image a linear read-out finds at each level of the encoder.

    A sample at level l stands for a block of samples of the image. Ridge regression predicts the block, as the network
    is given it, from the channels at its sample: fitted on every other position of up to ``IMAGES`` images spread over
    the split, scored on those between. The penalty is the one of ``RIDGES`` with which one half of the fitted positions
    tells the other best. No neighbours help, so what a level holds only spread over several samples counts as lost.
    Source: linear probes, Alain and Bengio 2016, https://arxiv.org/abs/1610.01644, with the image for target.

    Returns:
        ``information/<level>``: R^2 on the positions not fitted; 1 where all is kept, 0 where no more than the mean.
    """
    scores = {}
    for level, (one, between, other, beyond) in enumerate(quarters(task, data, split)):
        name = f"information/{level}"
        with skip_on_error(name):
            ridge = max(RIDGES, key=partial(r_squared, one, other))
            scores[name] = r_squared(one + other, between + beyond, ridge)
    return scores


def quarters(task: SegmentationTask, data: SegmentationData, split: str) -> list[list["Moments"]]:
    """For each level, the moments of its features and the image's blocks at every fourth position, from 0, 1, 2, 3."""
    net: Any = task.net
    levels = [net.stem, *net.encoder]
    found = [[Moments() for _ in range(4)] for _ in levels]
    with watching(levels) as seen:
        for index in evenly_spaced(len(data.samples[split]), IMAGES):
            image = data.example(split, index).to(task.device)
            net.forward(task.normalize(image))  # not its compiled form, which knows no hooks
            padded, *maps = (values[0].cpu().double().numpy() for values in seen)
            for parts, features in zip(found, maps, strict=True):
                given, wanted = features.reshape(len(features), -1).T, blocks(padded, features.shape[1:])
                for place, part in enumerate(parts):
                    part.add(given[place::4], wanted[place::4])
    return found


@contextmanager
def watching(levels: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """While it lasts, the list holds of the last forward pass what the first module was given and what each returned.

    (1 + len(levels)) maps (B, C, *S).
    """
    seen: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[:] = args

    def leave(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)

    hooks = [levels[0].register_forward_pre_hook(enter), *(level.register_forward_hook(leave) for level in levels)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def blocks(image: Array, coarse: Sequence[int]) -> Array:
    """An image (C, *S) as the blocks that a grid of ``coarse`` samples per axis divides it into: (blocks, C * size)."""
    split = [part for n, m in zip(image.shape[1:], coarse, strict=True) for part in (m, n // m)]
    grid, inner = range(1, 2 * len(coarse), 2), range(2, 2 * len(coarse) + 1, 2)
    return image.reshape(len(image), *split).transpose(*grid, 0, *inner).reshape(int(np.prod(coarse)), -1)


@dataclass
class Moments:
    """Sums over positions from which a linear regression can be fitted or scored: no position has to be kept.

    Attributes:
        count: positions.
        gram: of the features with a leading 1, (1 + P, 1 + P).
        cross: of those with the targets, (1 + P, Q).
        square: of the targets with themselves, summed over them.
    """

    count: int = 0
    gram: Array | float = 0.0
    cross: Array | float = 0.0
    square: float = 0.0

    def add(self, features: Array, targets: Array) -> None:
        """features (N, P), targets (N, Q)."""
        known = np.concatenate([np.ones((len(features), 1)), features], axis=1)
        self.count += len(known)
        self.gram = self.gram + known.T @ known
        self.cross = self.cross + known.T @ targets
        self.square += float(np.square(targets).sum())

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def r_squared(fitted: Moments, held: Moments, ridge: float) -> float:
    """1 - (squared error) / (squared deviation from the mean) on ``held``, of the ridge regression on ``fitted``.

    ``ridge`` is its penalty, in units of the features' mean variance.

    Raises:
        UserError: as many channels as positions to fit them on, or targets that do not vary.
    """
    if held.count == 0 or fitted.count <= len(np.atleast_1d(fitted.gram)):
        raise UserError(f"{fitted.count} positions are too few for its channels")
    gram, cross = np.asarray(fitted.gram), np.asarray(fitted.cross)
    variances = gram.diagonal()[1:] - gram[0, 1:] ** 2 / fitted.count
    penalty = np.full(len(gram), ridge * variances.mean())
    penalty[0] = 0  # the mean is free
    weights = np.linalg.lstsq(gram + np.diag(penalty), cross)[0]
    error = held.square - 2 * np.sum(weights * held.cross) + np.sum(weights * (held.gram @ weights))
    deviation = held.square - np.sum(np.asarray(held.cross)[0] ** 2) / held.count
    if deviation <= 0:
        raise UserError("the images do not vary")
    return float(1 - error / deviation)
