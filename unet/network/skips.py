"""Skip connections by name: modules that combine a skip with the upsampled features, both (B, C, *S)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.network.blocks import NORMS, conv, look_up, with_dense_gradient


class Skip(nn.Module):
    """A skip connection; its output has ``factor`` times the channels of its inputs."""

    factor = 1

    def __init__(self, channels: int, spatial_dims: int, norm: str):
        super().__init__()


class ConcatSkip(Skip):
    """Concatenate both (Ronneberger et al. 2015)."""

    factor = 2

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return torch.cat([with_dense_gradient(skip), with_dense_gradient(x)], dim=1)


class AddSkip(Skip):
    """Add both."""

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return skip + x


class NoSkip(Skip):
    """Leave the skip out."""

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return x


class AttentionSkip(ConcatSkip):
    """Scale every position of the skip by a learned weight of 0 to 1, then concatenate both.

    The weight is computed from both, at the skip's resolution. Source: Oktay et al. 2018, Attention U-Net,
    https://arxiv.org/abs/1804.03999, which computes it at half of that resolution, before the features are upsampled.
    """

    def __init__(self, channels: int, spatial_dims: int, norm: str):
        super().__init__(channels, spatial_dims, norm)
        hidden = max(2, channels // 2)  # group norm needs two
        self.from_skip = conv(spatial_dims)(channels, hidden, 1, bias=False)
        self.from_x = conv(spatial_dims)(channels, hidden, 1, bias=norm == "none")
        self.norm = look_up(NORMS, "norm", norm)(hidden, spatial_dims)
        self.weight = conv(spatial_dims)(hidden, 1, 1)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        features = F.relu(self.norm(self.from_skip(skip) + self.from_x(x)))
        return super().forward(skip * torch.sigmoid(self.weight(features)), x)


SKIPS: dict[str, type[Skip]] = {"concat": ConcatSkip, "add": AddSkip, "none": NoSkip, "attention": AttentionSkip}
"""The kinds of skip connections by name, values of ``model.skip``."""
