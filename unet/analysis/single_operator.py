"""Build a single operator with stride 2 along every axis, and inputs for it."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.registry import CONTEXT, UP, Registry

STRIDE = 2
SHARED = {"norm": "batch", "act": "relu"}


def build_operator(table: Registry, name: str, spatial_dims: int, channels: int) -> nn.Module:
    """Build an operator between ``channels`` at the fine level and, for an up operator, twice as many at the coarse.

    Raises:
        UserError: the operator does not support that many axes.
    """
    if table is CONTEXT:
        return table.build(name, SHARED, channels=channels, spatial_dims=spatial_dims)
    width = {"in_channels": 2 * channels, "out_channels": channels} if table is UP else {"channels": channels}
    return table.build(name, SHARED, **width, spatial_dims=spatial_dims, stride=(STRIDE,) * spatial_dims)


def supported_dims(table: Registry, name: str) -> list[int]:
    """Return the numbers of spatial axes that an operator supports."""
    result = []
    for spatial_dims in (1, 2, 3):
        with suppress(UserError):
            build_operator(table, name, spatial_dims, channels=4)
            result.append(spatial_dims)
    return result


def example_inputs(table: Registry, channels: int, size: Sequence[int], batch: int) -> list[Tensor]:
    """Return random inputs of :func:`build_operator`'s result; ``size``: even sizes of the fine level."""
    fine, coarse = tuple(size), tuple(n // STRIDE for n in size)
    if table is CONTEXT:
        return [torch.randn(batch, channels, *coarse)]
    if table is UP:
        return [torch.randn(batch, 2 * channels, *coarse), torch.randn(batch, channels, *fine)]
    return [torch.randn(batch, channels, *fine)]
