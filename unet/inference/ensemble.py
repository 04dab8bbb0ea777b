"""Several trained networks as one, which predicts the mean of their probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.inference.segmenter import Segmenter
from unet.network.normalization import adjust_logits

EQUAL_KEYS = ("classes", "eval_transforms", "gamma", "dtype", "channel_names", "channel_file")
"""The entries of the descriptions in which the networks of an ensemble must agree."""


class AveragedNetwork(nn.Module):
    """The logarithm of the mean of the probabilities of several networks.

    image (B, C, *S), standardized as for the first network -> log-probabilities (B, K, *S). Each network then gets the
    image in its own standardization. Source: Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474.
    """

    def __init__(self, models: Sequence[Segmenter]):
        super().__init__()
        self.models = nn.ModuleList(models)
        first = models[0].net
        self.in_channels, self.spatial_dims, self.strides = first.in_channels, first.spatial_dims, first.strides
        # Tiles begin at multiples of it, where the grids of all networks do.
        self.total_stride = tuple(math.lcm(*axis) for axis in zip(*(m.net.total_stride for m in models), strict=True))

    def forward(self, image: Tensor) -> Tensor:
        models: Any = self.models
        stored = image * models[0].normalize.std + models[0].normalize.mean
        total: Any = 0
        for model in models:
            logits = adjust_logits(model.net(model.normalize(stored)), model.log_weights)
            total = total + logits.float().softmax(1)
        return (total / len(models)).clamp(min=torch.finfo(torch.float32).tiny).log()


def make_ensemble(models: Sequence[Segmenter], names: Sequence[str]) -> Segmenter:
    """Return a model that predicts the mean of the probabilities of several; all else is that of the first.

    Raises:
        UserError: they differ in their classes, in the images they take, or in their evaluation transforms.
    """
    first, *others = models
    for model, name in zip(others, names[1:], strict=True):
        for key in EQUAL_KEYS:
            require_equal(key, first.description.get(key), model.description.get(key), names[0], name)
        for key in ("in_channels", "spatial_dims"):
            require_equal(key, getattr(first.net, key), getattr(model.net, key), names[0], name)
    field = [max(axis) for axis in zip(*(model.field for model in models), strict=True)]
    description = {**first.description, "log_weights": None, "field": field}
    return Segmenter(description, AveragedNetwork(models)).eval()


def require_equal(key: str, first: Any, other: Any, first_name: str, other_name: str) -> None:
    """Raise UserError unless two checkpoints have equal values of a key."""
    if first != other:
        raise UserError(
            f"ckpt: {other_name} cannot be averaged with {first_name}: {key} is {other!r} there and {first!r} here; "
            f"expected networks of the same data"
        )
