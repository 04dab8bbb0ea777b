"""Input normalization and logit adjustment, shared by training and inference."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Standardization of each channel to zero mean and unit deviation. image (B, C, *S) of any dtype -> float32.

    NaN, the value of pixels without data, becomes 0: the mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int):
        super().__init__()
        shape = (1, len(mean), *[1] * spatial_dims)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    def forward(self, image: Tensor) -> Tensor:
        standardized = (image.float() - self.mean) / self.std
        return standardized.masked_fill(standardized.isnan(), 0.0) if image.is_floating_point() else standardized


def apply_gamma(image: Tensor, gamma: float) -> Tensor:
    """Return an image of 0 to 255 with every brightness v of 0 to 1 as ``v ** gamma``, rounded to integers."""
    if gamma == 1:
        return image
    return ((image.float() / 255).clamp(min=0).pow(gamma) * 255).round()


def adjust_logits(logits: Tensor, log_weights: Tensor) -> Tensor:
    """Subtract the log class weights (K,) from logits (B, K, *S).

    With class weights w, the loss is minimal at probabilities proportional to w p. Division by w restores p, so that
    classes with large weights are not predicted too often. Source: Menon et al. 2021, Long-tail learning via logit
    adjustment, https://arxiv.org/abs/2007.07314.
    """
    return logits - log_weights.view(-1, *[1] * (logits.ndim - 2))
