"""Draw the worked examples of docs/operators.md with the project's own operators.

    python scripts/maintain/worked_examples.py          write docs/pictures/example_*.png
    python scripts/maintain/worked_examples.py --out DIR

The same numbers, computed by hand, are tests (tests/test_worked_examples.py).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from unet import DOWN, UP
from unet.io.atomic import atomic_write
from unet.io.provenance import ROOT

SHARED = {"norm": "none", "act": "relu"}
Panel = tuple[str, Tensor]
IMAGE = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
MATRIX = [[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]]


def matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    """Convert rows of numbers to a tensor (1, 1, H, W)."""
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def down(spec: str | dict) -> nn.Module:
    """Build a down operator of one channel."""
    return DOWN.build(spec, SHARED, channels=1, spatial_dims=2, stride=(2, 2))


def up(spec: str | dict, weight: Tensor) -> nn.Module:
    """Build an up operator of one channel whose convolutions have this kernel, centered, and no bias."""
    operator = UP.build(spec, SHARED, in_channels=1, out_channels=1, spatial_dims=2, stride=(2, 2))
    for module in operator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            margins = [(n - m) // 2 for n, m in zip(module.weight.shape[2:], weight.shape[2:], strict=True)]
            module.weight.data = F.pad(weight, (margins[1], margins[1], margins[0], margins[0]))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return operator


IDENTITY = matrix([[1]])


def convolution() -> list[Panel]:
    """Slide a kernel over an image."""
    image, kernel = matrix(IMAGE), matrix([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    return [("image", image), ("kernel", kernel), ("convolved", F.conv2d(image, kernel))]


def pooled_x() -> list[Panel]:
    """Detect the diagonal of an X, then pool at stride 3."""
    x = torch.clamp(torch.eye(5) + torch.eye(5).flip(1), max=1)[None, None]
    kernel = torch.eye(3).flip(1)[None, None]
    response = F.conv2d(x, kernel, padding=1)
    return [
        ("an X", x),
        ("anti-diagonal", kernel),
        ("convolved, padding 1", response),
        ("max, window 2, stride 3", F.max_pool2d(response, 2, 3)),
        ("average", F.avg_pool2d(response, 2, 3)),
    ]


def pooling() -> list[Panel]:
    """Pool a matrix."""
    x = matrix(MATRIX)
    return [("4 x 4", x), ("max, 2 x 2", down("max")(x)), ("average, 2 x 2", down("avg")(x))]


def transposed() -> list[Panel]:
    """Compare a transposed convolution with zero insertion and a flipped kernel."""
    x, kernel = matrix([[1, 2], [3, 4]]), matrix([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    zeros = torch.zeros(1, 1, 7, 7)
    zeros[..., 2:5:2, 2:5:2] = x
    return [
        ("2 x 2", x),
        ("kernel", kernel),
        ("transposed, stride 2", F.conv_transpose2d(x, kernel, stride=2)),
        ("zeros inserted", zeros),
        ("flipped kernel", kernel.flip(2, 3)),
        ("convolved: the same", F.conv2d(zeros, kernel.flip(2, 3))),
        ("in the network: twice the size", up({"name": "transposed", "kernel_size": 3}, kernel)(x, x)),
    ]


def bilinear() -> list[Panel]:
    """Upsample between four values."""
    x = matrix([[10, 20], [30, 60]])
    outputs = [up({"name": name, "kernel_size": 1}, IDENTITY)(x, x) for name in ("nearest", "linear")]
    return [("2 x 2", x), ("nearest", outputs[0]), ("bilinear", outputs[1])]


def unpooling() -> list[Panel]:
    """Put pooled values back to the positions of the maxima."""
    x = matrix([[1, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return [
        ("4 x 4: the skip", x),
        ("max-pooled", pooled),
        ("indices of the maxima", indices.float()),
        ("max-unpooled", up("unpool", IDENTITY)(pooled, x)),
    ]


def padding() -> list[Panel]:
    """Count the uses of every pixel."""

    def count_uses(padding: int) -> Tensor:
        x = torch.zeros(1, 1, 7, 7, requires_grad=True)
        F.conv2d(x, torch.ones(1, 1, 3, 3), padding=padding).sum().backward()
        assert x.grad is not None
        return x.grad

    return [("uses, no padding", count_uses(0)), ("uses, padding 1", count_uses(1))]


def checkerboard() -> list[Panel]:
    """Count the overlaps of the patches of a transposed convolution."""
    x = torch.ones(1, 1, 4, 4)
    kernels = {k: up({"name": "transposed", "kernel_size": k}, torch.ones(1, 1, k, k)) for k in (2, 3, 4)}
    return [(f"overlapping patches, kernel {k}", operator(x, x)) for k, operator in kernels.items()]


EXAMPLES: dict[str, Callable[[], list[Panel]]] = {
    example.__name__: example
    for example in (convolution, pooled_x, pooling, transposed, bilinear, unpooling, padding, checkerboard)
}


CELL, MARGIN, TITLE, LETTER = 0.42, 0.25, 0.3, 0.078
"""Sizes in inches: cell of a matrix, margin between panels, height of a title, width of a letter."""


def draw(panels: Sequence[Panel]) -> FigureCanvasAgg:
    """Draw matrices side by side, with every number in its cell, in a darker color the larger it is."""
    widths = [max(CELL * values.shape[-1], LETTER * len(title)) for title, values in panels]
    height = CELL * max(values.shape[-2] for _, values in panels)
    page = sum(widths) + MARGIN * (len(panels) + 1), height + TITLE + MARGIN
    figure = Figure(figsize=page, dpi=90)
    x = MARGIN
    for (title, values), width in zip(panels, widths, strict=True):
        rows, columns = values.shape[-2:]
        bottom = page[1] - TITLE - CELL * rows
        axes = figure.add_axes((x / page[0], bottom / page[1], CELL * columns / page[0], CELL * rows / page[1]))
        axes.set_title(title, fontsize=9, loc="left", pad=4)
        draw_matrix(axes, values.detach()[0, 0])
        x += width + MARGIN
    return FigureCanvasAgg(figure)


def draw_matrix(axes: Axes, numbers: Tensor) -> None:
    """Draw a matrix (H, W) as cells with their numbers."""
    maximum = max(float(numbers.max()), 1e-6)
    axes.imshow(numbers.numpy(), cmap="Blues", vmin=min(0.0, float(numbers.min())), vmax=1.4 * maximum)
    for y, line in enumerate(numbers.tolist()):
        for x, value in enumerate(line):
            axes.text(x, y, f"{value:.4g}", ha="center", va="center", fontsize=9)
    for axis, count in ((axes.xaxis, numbers.shape[1]), (axes.yaxis, numbers.shape[0])):
        axis.set_ticks([edge - 0.5 for edge in range(count)], [])
    axes.tick_params(length=0)
    axes.grid(color="white", linewidth=1.5)
    for side in axes.spines.values():
        side.set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder of the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, example in EXAMPLES.items():
        path = out / f"example_{name}.png"
        with atomic_write(path) as file:
            draw(example()).print_png(file)
        print(path)


if __name__ == "__main__":
    main()
