"""Find widths at which a network has as many parameters or FLOPs as the original U-Net."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unet.errors import UserError
from unet.network.geometry import count_flops, count_parameters
from unet.network.model import UNet, level_widths

REFERENCE = {"down": "max", "up": "transposed", "context": "none", "skip": "concat", "block": "plain"}
"""The operators whose budget the others are matched to, at the same width and depth."""
TOLERANCE = 0.02

BUDGETS: Mapping[str, Callable[[nn.Module, Sequence[int]], int]] = {
    "parameters": lambda net, shape: count_parameters(net),
    "flops": count_flops,
}


def match_width(settings: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of ``UNet`` for a config whose ``match`` names a budget or is None.

    The widths of all levels are scaled by one factor, found by bisection; then one level may get one more channel.
    ``size``: samples along every axis of a training image. Raises UserError if no width is within 2 % of the budget.
    """
    arguments = dict(settings)
    budget = arguments.pop("match", None)
    if budget is None:
        return arguments
    if arguments.get("encoder", "none") != "none":
        raise UserError(
            f"model.match={budget}: model.encoder={arguments['encoder']} has fixed channels; leave one of them out"
        )
    base = level_widths(arguments["width"], arguments["depth"])

    def cost(settings: Mapping[str, Any]) -> int:
        with torch.device("meta"):
            return BUDGETS[budget](UNet(**settings), (1, arguments["in_channels"], *size))

    target = cost(arguments | REFERENCE)
    costs: dict[tuple[int, ...], int] = {}

    def excess(widths: tuple[int, ...]) -> int:
        if widths not in costs:
            costs[widths] = cost(arguments | {"width": list(widths)})
        return costs[widths] - target

    low, high = 1 / 16, 16.0
    for _ in range(24):  # far finer than a channel
        scale = (low * high) ** 0.5
        low, high = (low, scale) if excess(scaled(base, scale)) > 0 else (scale, high)
    for level in range(len(base)):  # corrects for rounding, one channel at a time
        widths = scaled(base, low)
        excess((*widths[:level], widths[level] + 1, *widths[level + 1 :]))
    best = min(costs, key=lambda widths: abs(costs[widths] - target))
    if abs(costs[best] - target) > TOLERANCE * target:
        raise UserError(
            f"model.match={budget}: no widths give this network the {target:,} {budget} of {REFERENCE['down']} and "
            f"{REFERENCE['up']} within {TOLERANCE:.0%}; the nearest, {list(best)}, have {costs[best]:,}: "
            f"use a larger model.width"
        )
    return arguments | {"width": list(best)}


def scaled(widths: Sequence[int], scale: float) -> tuple[int, ...]:
    """Scale the widths of all levels by one factor, to at least one channel."""
    return tuple(max(1, round(scale * width)) for width in widths)
