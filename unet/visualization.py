"""Images of predictions and of the confusion matrix."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from unet.labels import IGNORE_INDEX, label_entropy

Array = np.ndarray
PADDING = 4
TITLES = ("image", "truth", "prediction", "errors")
WINDOW, PIXELS_PER_SAMPLE, STRIP_HEIGHT = 512, 2, 28
"""How a sequence is drawn: the number of samples, and its size in pixels."""
GREY, RED = (90, 90, 90), (220, 30, 30)


def to_rgb(image: Array) -> Array:
    """Convert an image (H, W, C) of any range to uint8 RGB: its first three channels, or the first one repeated.

    NaN, where there is no data, is black.
    """
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    image = image.astype(np.float64)
    if np.isnan(image).all():
        return np.zeros(image.shape, np.uint8)
    low, high = np.nanmin(image), np.nanmax(image)
    return np.nan_to_num((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def colorize(labels: Array, colors: Sequence[Sequence[int]]) -> Array:
    """Return labels (H, W) in the colours of their classes, ignored ones in grey."""
    table = np.full((256, 3), GREY, np.uint8)
    for label, color in enumerate(colors):
        table[label] = color
    return table[labels]


def draw_errors(image: Array, target: Array, pred: Array) -> Array:
    """Return the image darkened, with wrong pixels in red; ignored pixels are not wrong."""
    output = (to_rgb(image) * 0.35).astype(np.uint8)
    output[(pred != target) & (target != IGNORE_INDEX)] = RED
    return output


def to_2d_view(image: Array, target: Array, pred: Array) -> tuple[Array, Array, Array]:
    """Reduce an image of any number of axes, its target and its prediction to two, each (H, W) or (H, W, C).

    A volume is reduced to a slice across its shortest axis, a sequence to a strip of ``WINDOW`` samples; the slice or
    window with the highest entropy of labels is taken.
    """
    if target.ndim == 3:
        axis = int(np.argmin(target.shape))
        index = highest_entropy(np.moveaxis(target, axis, 0))
        image, target, pred = (np.take(values, index, axis) for values in (image, target, pred))
    if target.ndim == 1:
        length = min(WINDOW, len(target))
        starts = range(0, len(target) - length + 1, max(1, length // 4))
        start = starts[highest_entropy(np.stack([target[first : first + length] for first in starts]))]
        strips = (values[None, start : start + length] for values in (image, target, pred))
        image, target, pred = (strip.repeat(STRIP_HEIGHT, 0).repeat(PIXELS_PER_SAMPLE, 1) for strip in strips)
    return image, target, pred


def highest_entropy(targets: Array) -> int:
    """Return the index of the target (N, *S) with the largest product of label entropy and number of labels."""
    flat = targets.reshape(len(targets), -1)
    counts = np.stack([np.bincount(labels, minlength=256)[:IGNORE_INDEX] for labels in flat])
    return int((counts.sum(1) * label_entropy(counts)).argmax())


def panel(image: Array, target: Array, pred: Array, colors: Sequence[Sequence[int]]) -> Array:
    """Return image, truth, prediction and errors in one image (H, W, 3) uint8: side by side, or stacked if 1-D."""
    axis = 0 if target.ndim == 1 else 1
    image, target, pred = to_2d_view(image, target, pred)
    images = [to_rgb(image), colorize(target, colors), colorize(pred, colors), draw_errors(image, target, pred)]
    bar = np.full_like(images[0].take(range(PADDING), axis), 255)
    return np.concatenate([piece for image in images for piece in (image, bar)][:-1], axis)


def to_png(image: Array) -> bytes:
    """Encode an image (H, W, 3) uint8 quickly: files are up to a tenth larger, or smaller where images are noisy."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def prediction_grid(
    panels: Sequence[Array], classes: Sequence[str], colors: Sequence[Sequence[int]], spatial_dims: int
) -> Array:
    """Stack panels, with titles and a legend of the classes, as an image (H, W, 3) uint8."""
    font = ImageFont.load_default(size=13)
    left, top, spacing = (90, 6, 4 * PADDING) if spatial_dims == 1 else (0, 22, PADDING)
    width = max(320, *(left + image.shape[1] for image in panels))
    legend = layout_legend(classes, font, width)
    bottom = 20 * (1 + max(row for row, _ in legend)) + 6
    height = top + sum(len(image) + spacing for image in panels) + bottom
    grid = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(grid)
    y = top
    for image in panels:
        grid.paste(Image.fromarray(image), (left, y))
        for index, title in enumerate(TITLES if spatial_dims == 1 else ()):
            draw.text((2, y + index * (STRIP_HEIGHT + PADDING) + STRIP_HEIGHT // 2 - 8), title, "black", font)
        y += len(image) + spacing
    for index, title in enumerate(() if spatial_dims == 1 else TITLES):
        draw.text((index * (panels[0].shape[1] + PADDING) / 4 + 2, 3), title, "black", font)
    draw_legend(draw, y, legend, classes, colors, font)
    return np.asarray(grid)


def layout_legend(classes: Sequence[str], font, width: int) -> list[tuple[int, int]]:
    """Return (row, x) of every class name, in rows of at most ``width`` pixels."""
    positions, row, x = [], 0, 2
    for name in classes:
        length = int(font.getlength(name)) + 32
        if x + length > width and x > 2:
            row, x = row + 1, 2
        positions.append((row, x))
        x += length
    return positions


def draw_legend(
    draw: ImageDraw.ImageDraw,
    top: int,
    positions: Sequence[tuple[int, int]],
    classes: Sequence[str],
    colors: Sequence[Sequence[int]],
    font,
) -> None:
    """Draw the colour and name of every class below ``top``, at the positions of :func:`layout_legend`."""
    for (row, x), name, color in zip(positions, classes, colors, strict=False):
        draw.rectangle((x, top + 20 * row + 5, x + 12, top + 20 * row + 17), tuple(color), "black")
        draw.text((x + 17, top + 20 * row + 3), name, "black", font)


def draw_confusion_matrix(counts: Array, classes: Sequence[str]) -> Array:
    """Draw the confusion matrix, each row in per cent of its true class, as (H, W, 3) uint8."""
    percent = counts / np.maximum(counts.sum(1, keepdims=True), 1) * 100
    side = 1.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side, side), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title="% of the true class")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    for (row, column), value in np.ndenumerate(percent):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 50 else "black")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
