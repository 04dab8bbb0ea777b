"""Feature maps at the input and the output of every operator of a network."""

from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.registry import operator_name

Array = np.ndarray
MIN_SIDE = 96
"""Pixels of the longer side of an enlarged map, at least."""
PADDING = 4
WINDOW = 512
"""Samples of a 1-D feature map that are drawn."""
STRIP_ASPECT = 20
"""Length divided by height of the strip that a 1-D feature map is drawn as."""


@dataclass(frozen=True)
class OperatorIO:
    """The input (C, *S), without the skip connection, and the output (C', *S') of one operator for one image.

    ``name`` is that of the module, such as ``downs.0``, and ``operator`` the one in the config.
    """

    name: str
    operator: str
    input: Tensor
    output: Tensor

    @property
    def title(self) -> str:
        """The names of the module and of the operator: ``downs.0 max``."""
        return f"{self.name} {self.operator}"


@torch.no_grad()
def feature_maps(net: nn.Module, image: Tensor) -> list[OperatorIO]:
    """Return the feature maps of the first image of a batch (B, C, *S), normalised as the network expects it."""
    records: list[OperatorIO] = []
    names = {module: name for name, module in net.named_modules()}

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        operator = operator_name(module) or ""
        records.append(OperatorIO(names[module], operator, args[0][0].float().cpu(), output[0].float().cpu()))

    handles = [m.register_forward_hook(record) for m in names if operator_name(m) not in (None, "none")]
    training = net.training
    net.eval()
    try:
        net(image)
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    return records


def draw_operator_io(record: OperatorIO, count: int) -> Array:
    """Draw ``count`` channels of an operator's input (above) and output (below) in viridis: (H, W, 3) uint8.

    The channels with the most variance are drawn, each on its own scale. If the operator keeps the number of channels,
    the same channels are drawn above and below, on the same scale.
    """
    fraction = min(1.0, WINDOW / max(record.input.shape[1], record.output.shape[1]))
    inputs, outputs = to_2d(record.input, fraction), to_2d(record.output, fraction)
    same_width = len(inputs) == len(outputs)
    input_channels = select_channels(inputs, count)
    output_channels = input_channels if same_width else select_channels(outputs, count)
    above: list[Tensor] = []
    below: list[Tensor] = []
    for i, j in zip(input_channels, output_channels, strict=False):
        both = torch.cat([inputs[i].flatten(), outputs[j].flatten()])
        above.append(apply_colormap(inputs[i], both if same_width else inputs[i]))
        below.append(apply_colormap(outputs[j], both if same_width else outputs[j]))
    finest = [max(sizes) for sizes in zip(inputs.shape[1:], outputs.shape[1:], strict=True)]
    size = [round(n * max(1, MIN_SIDE / max(finest))) for n in finest]  # the same for both, so that positions match
    images = [F.interpolate(image[None], size=size, mode="nearest")[0] for image in (*above, *below)]
    return stack_grid(torch.stack(images).unflatten(0, (2, -1)))


def stack_grid(images: Tensor) -> Array:
    """Draw images (rows, columns, 3, H, W) uint8 in one, with white lines around each: (H', W', 3)."""
    framed = F.pad(images, (PADDING, 0, PADDING, 0), value=255).permute(0, 3, 1, 4, 2)
    grid = framed.flatten(2, 3).flatten(0, 1)
    return F.pad(grid, (0, 0, 0, PADDING, 0, PADDING), value=255).numpy()


def select_channels(maps: Tensor, count: int) -> list[int]:
    """Return the channels of (C, H, W) with the most variance that the channels selected before do not explain.

    Many channels of a network are near copies of each other.
    """
    residual = maps.flatten(1).double()
    residual = residual - residual.mean(1, keepdim=True)
    indices: list[int] = []
    for _ in range(min(count, len(maps))):
        variances = residual.square().sum(1)
        variances[indices] = -1
        indices.append(int(variances.argmax()))
        selected = residual[indices[-1]]
        weights = residual @ selected / selected.square().sum().clamp(min=1e-12)
        residual = residual - torch.outer(weights, selected)
    return indices


def to_2d(maps: Tensor, fraction: float) -> Tensor:
    """Return maps (C, *S) as (C, H, W): the middle slice of a volume, the middle ``fraction`` of a line as a strip."""
    if maps.ndim == 2:
        length = max(1, round(fraction * maps.shape[1]))
        middle = maps.narrow(1, (maps.shape[1] - length) // 2, length)
        return middle[:, None].expand(-1, max(1, length // STRIP_ASPECT), -1)
    return maps[:, maps.shape[1] // 2] if maps.ndim == 4 else maps


def apply_colormap(values: Tensor, scale: Tensor) -> Tensor:
    """Return a map (H, W) in viridis, from the 1st to the 99th percentile of ``scale``: (3, H, W) uint8.

    Zero padding often gives the border the largest values, which would leave the rest in one colour.
    """
    low, high = scale.quantile(0.01), scale.quantile(0.99)
    position = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).numpy()
    colors = (matplotlib.colormaps["viridis"](position)[..., :3] * 255).round().astype(np.uint8)
    return torch.from_numpy(colors).movedim(2, 0)
