"""Measure how much of the image can be read from each level of the encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.predictions import map_images, torch_threads
from unet.errors import UserError
from unet.network.geometry import pad, padding_to_multiple
from unet.network.model import UNet
from unet.task.module import SegmentationTask

NUM_IMAGES = 128
RIDGES = [10.0**power for power in range(-6, 2)]
"""Penalties to choose from, in units of the features' mean variance."""


def information(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """Return the R² with which a linear model predicts the image from each level of the encoder.

    Each position of a level corresponds to a block of pixels. Ridge regression predicts the block, as the network
    receives it, from the channels at the position: fitted on every second position of up to ``NUM_IMAGES`` images,
    scored on the others. The penalty is the one of ``RIDGES`` with which one half of the fitted positions predicts the
    other half best. Neighboring positions are not used, so information that is spread over several positions counts as
    lost. Source: linear probes, Alain and Bengio 2016, https://arxiv.org/abs/1610.01644, with the image as target.

    Returns:
        ``information/<level>``: R² on the test positions; 1 for the complete image, 0 for no more than the mean.
    """
    scores = {}
    for level, (train, test, validation, more_test) in enumerate(collect_moments(task, data, split)):
        name = f"information/{level}"
        with skip_on_error(name), torch_threads(1):
            ridge = max(RIDGES, key=partial(r_squared, train, validation))
            scores[name] = r_squared(train + validation, test + more_test, ridge)
    return scores


def collect_moments(task: SegmentationTask, data: SegmentationData, split: str) -> list[list["Moments"]]:
    """Return for each level the moments of its features and blocks at every fourth position, from 0, 1, 2 and 3."""
    net: Any = task.net
    if not isinstance(net, UNet):
        raise UserError("several networks have no levels in common")

    def encode_image(image: Tensor) -> list[np.ndarray]:
        return [to_array(maps) for maps in encode(net, task.normalize(image.to(task.device)))]

    moments = [[Moments() for _ in range(4)] for _ in net.widths]
    images = (data.example(split, index) for index in evenly_spaced(len(data.samples[split]), NUM_IMAGES))
    for padded, *levels in map_images(task, encode_image, images):
        for maps, quarters in zip(levels, moments, strict=True):
            features, targets = maps.reshape(len(maps), -1).T, blocks(padded, maps.shape[1:])
            for start, quarter in enumerate(quarters):
                quarter.add(features[start::4], targets[start::4])
    return moments


def encode(net: UNet, image: Tensor) -> list[Tensor]:
    """Return the padded image and the output of the encoder at every level, from fine to coarse."""
    padded = pad(image, padding_to_multiple(image.shape[2:], net.total_stride))
    return [padded, *net.encode(padded)]


def to_array(batch: Tensor) -> np.ndarray:
    """Return the first item of a batch as float64."""
    return batch[0].cpu().double().numpy()


def blocks(image: np.ndarray, grid_size: Sequence[int]) -> np.ndarray:
    """Return an image (C, *S) as the blocks of a grid with ``grid_size`` cells per axis: (blocks, C * block size)."""
    split = [length for n, m in zip(image.shape[1:], grid_size, strict=True) for length in (m, n // m)]
    grid, inner = range(1, 2 * len(grid_size), 2), range(2, 2 * len(grid_size) + 1, 2)
    return image.reshape(len(image), *split).transpose(*grid, 0, *inner).reshape(int(np.prod(grid_size)), -1)


@dataclass
class Moments:
    """Sums over positions from which a linear regression can be fitted or scored without storing the positions.

    They are computed with torch, whose number of threads is set; NumPy's threads wait busily for each other, which
    takes many times as long if other processes use the cores.

    ``gram`` is X^T X of the features with a leading 1, (1 + P, 1 + P), ``cross`` X^T Y of those with the targets,
    (1 + P, Q), and ``square`` the sum of the squared targets.
    """

    count: int = 0
    gram: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.float64))
    cross: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.float64))
    square: float = 0.0

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Add features (N, P) and targets (N, Q)."""
        inputs = torch.from_numpy(np.concatenate([np.ones((len(features), 1)), features], axis=1))
        self.count += len(inputs)
        self.gram = self.gram + inputs.T @ inputs
        self.cross = self.cross + inputs.T @ torch.from_numpy(targets)
        self.square += float(np.square(targets).sum())

    def __add__(self, second: "Moments") -> "Moments":
        return Moments(*(getattr(self, part.name) + getattr(second, part.name) for part in fields(self)))


def r_squared(train: Moments, test: Moments, ridge: float) -> float:
    """Return 1 - (squared error) / (squared deviation from the mean) on ``test`` of a ridge regression on ``train``.

    ``ridge`` is the penalty in units of the features' mean variance.

    Raises:
        UserError: there are no more positions than channels, or the targets are constant.
    """
    if test.count == 0 or train.count <= len(train.gram):
        raise UserError(f"{train.count} positions are too few for the number of channels")
    variances = train.gram.diagonal()[1:] - train.gram[0, 1:] ** 2 / train.count
    penalty = (ridge * variances.mean()).repeat(len(train.gram))
    penalty[0] = 0  # the intercept is not penalized
    weights = torch.linalg.lstsq(train.gram + penalty.diag(), train.cross, driver="gelsd").solution
    error = test.square - 2 * (weights * test.cross).sum() + (weights * (test.gram @ weights)).sum()
    deviation = test.square - test.cross[0].square().sum() / test.count
    if deviation <= 0:
        raise UserError("the images are constant")
    return float(1 - error / deviation)
