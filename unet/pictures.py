"""Pictures for eyes: rows of image, truth, prediction, errors; and the confusion matrix."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from unet.labels import IGNORE_INDEX

Array = np.ndarray
GAP = 4
GREY, RED = (90, 90, 90), (220, 30, 30)


def to_rgb(image: Array) -> Array:
    """An image (H, W, C) of any range and number of channels as uint8 RGB (its first three channels)."""
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    return ((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def colorize(labels: Array, colors: Sequence[Sequence[int]]) -> Array:
    """Labels (H, W) in their classes' colours; ignored ones grey."""
    table = np.full((256, 3), GREY, np.uint8)
    for label, color in enumerate(colors):
        table[label] = color
    return table[labels]


def errors(image: Array, target: Array, pred: Array) -> Array:
    """The image dimmed, with wrong pixels in red; what is ignored is never wrong."""
    dim = (to_rgb(image) * 0.35).astype(np.uint8)
    dim[(pred != target) & (target != IGNORE_INDEX)] = RED
    return dim


def panel(image: Array, target: Array, pred: Array, colors: Sequence[Sequence[int]]) -> Array:
    """image | truth | prediction | errors, side by side: (H, 4 W + gaps, 3) uint8."""
    parts = [to_rgb(image), colorize(target, colors), colorize(pred, colors), errors(image, target, pred)]
    bar = np.full((len(image), GAP, 3), 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (part, bar)][:-1], axis=1)


def sheet(panels: Sequence[Array], classes: Sequence[str], colors: Sequence[Sequence[int]]) -> Image.Image:
    """Panels under one another, with column titles and a legend of the classes."""
    font = ImageFont.load_default(size=13)
    width = max(320, *(piece.shape[1] for piece in panels))
    legend = layout_legend(classes, font, width)
    top, bottom = 22, 20 * (1 + max(row for row, _ in legend)) + 6
    height = top + sum(len(piece) + GAP for piece in panels) + bottom
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    column = (panels[0].shape[1] + GAP) / 4
    for place, title in enumerate(("image", "truth", "prediction", "errors")):
        draw.text((place * column + 2, 3), title, "black", font)
    y = top
    for piece in panels:
        page.paste(Image.fromarray(piece), (0, y))
        y += len(piece) + GAP
    for (row, x), name, color in zip(legend, classes, colors, strict=False):
        draw.rectangle((x, y + 20 * row + 5, x + 12, y + 20 * row + 17), tuple(color), "black")
        draw.text((x + 17, y + 20 * row + 3), name, "black", font)
    return page


def layout_legend(classes: Sequence[str], font, width: int) -> list[tuple[int, int]]:
    """(row, x) of every class name, broken into rows that fit."""
    places, row, x = [], 0, 2
    for name in classes:
        length = int(font.getlength(name)) + 32
        if x + length > width and x > 2:
            row, x = row + 1, 2
        places.append((row, x))
        x += length
    return places


def confusion_picture(counts: Array, classes: Sequence[str]) -> Array:
    """The confusion matrix, each row in per cent of its true class: (H, W, 3) uint8."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1) * 100
    side = 1.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side, side), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title="% of the true class")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    for (row, column), value in np.ndenumerate(share):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 50 else "black")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
