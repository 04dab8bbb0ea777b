"""Feature maps before and after every operator of a network: what each makes of what it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.registry import operator_name

Array = np.ndarray
SIDE = 96
"""Pixels that a map's longer side is enlarged to at least."""
GAP = 4
STRETCH = 512
"""Samples of a line that are drawn."""
SLENDER = 20
"""How many times as long as high a strip is."""


@dataclass(frozen=True)
class OperatorIO:
    """One image's way through one operator.

    Attributes:
        name: the operator's place in the network, such as ``downs.0``, fine to coarse.
        operator: its name as the config says it.
        before: what it was given (C, *S); of an up operator without the skip.
        after: what it returned (C', *S').
    """

    name: str
    operator: str
    before: Tensor
    after: Tensor

    @property
    def title(self) -> str:
        """Its place and its name: ``downs.0 max``."""
        return f"{self.name} {self.operator}"


@contextmanager
def capture(net: nn.Module, found: list[OperatorIO]) -> Iterator[None]:
    """While it lasts, every operator that is run adds its passage, in the order of the forward pass."""

    def watch(name: str, operator: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found.append(OperatorIO(name, operator, args[0][0].float().cpu(), output[0].float().cpu()))

        return hook

    hooks = []
    for name, module in net.named_modules():
        operator = operator_name(module)
        if operator not in (None, "none"):
            hooks.append(module.register_forward_hook(watch(name, operator)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def feature_maps(net: nn.Module, image: Tensor) -> list[OperatorIO]:
    """The passages of the first image of a batch (B, C, *S), normalised as the network expects it."""
    found: list[OperatorIO] = []
    training = net.training
    net.eval()
    try:
        with capture(net, found):
            net(image)
    finally:
        net.train(training)
    return found


def draw_operator_io(passage: OperatorIO, count: int) -> Array:
    """``count`` channels before (above) and after (below) an operator, in viridis: (H, W, 3) uint8.

    The channels are those that tell the most, each on a scale of its own. Where the operator keeps the
    width they are the same channels above and below, on the same scale; else each row shows its own.
    """
    from torchvision.utils import make_grid  # takes a second to import

    share = min(1.0, STRETCH / max(passage.before.shape[1], passage.after.shape[1]))
    before, after = to_2d(passage.before, share), to_2d(passage.after, share)
    kept = len(before) == len(after)
    above = select_channels(before, count)
    below = above if kept else select_channels(after, count)
    rows: list[list[Tensor]] = [[], []]
    for one, other in zip(above, below, strict=False):
        given, made = before[one], after[other]
        both = torch.cat([given.flatten(), made.flatten()])
        rows[0].append(colored(given, both if kept else given))
        rows[1].append(colored(made, both if kept else made))
    finest = [max(one, other) for one, other in zip(before.shape[1:], after.shape[1:], strict=True)]
    size = [round(n * max(1, SIDE / max(finest))) for n in finest]  # of both, so that their places correspond
    enlarged = [F.interpolate(picture[None], size=size, mode="nearest")[0] for picture in (*rows[0], *rows[1])]
    grid = make_grid(enlarged, nrow=len(rows[0]), padding=GAP, pad_value=255)
    return grid.movedim(0, -1).numpy()


def select_channels(maps: Tensor, count: int) -> list[int]:
    """Channels of (C, H, W) that tell the most: the one that varies most, then what varies most beside those chosen.

    Many channels of a network are near copies of each other; four of those would show one thing.
    """
    left = maps.flatten(1).double()
    left = left - left.mean(1, keepdim=True)
    chosen: list[int] = []
    for _ in range(min(count, len(maps))):
        variances = left.square().sum(1)
        variances[chosen] = -1
        chosen.append(int(variances.argmax()))
        known = left[chosen[-1]]
        left = left - torch.outer(left @ known / known.square().sum().clamp(min=1e-12), known)
    return chosen


def to_2d(maps: Tensor, share: float) -> Tensor:
    """Maps (C, *S) as pictures (C, H, W): a volume by its middle slice, of a line the middle ``share`` as a strip."""
    if maps.ndim == 2:
        length = max(1, round(share * maps.shape[1]))
        middle = maps.narrow(1, (maps.shape[1] - length) // 2, length)
        return middle[:, None].expand(-1, max(1, length // SLENDER), -1)
    return maps[:, maps.shape[1] // 2] if maps.ndim == 4 else maps


def colored(values: Tensor, scale: Tensor) -> Tensor:
    """Return a map (H, W) in viridis over the range of ``scale`` but for a hundredth at either end: (3, H, W) uint8.

    The zeros around an image often make its border the brightest of all, which would leave the rest in one colour.
    """
    low, high = scale.quantile(0.01), scale.quantile(0.99)
    share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).numpy()
    return torch.from_numpy((matplotlib.colormaps["viridis"](share)[..., :3] * 255).round().astype(np.uint8)).movedim(
        2, 0
    )
