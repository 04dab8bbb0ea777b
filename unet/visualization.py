"""Pictures for eyes: rows of image, truth, prediction, errors; and the confusion matrix."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from unet.labels import IGNORE_INDEX, label_entropy

Array = np.ndarray
GAP = 4
TITLES = ("image", "truth", "prediction", "errors")
STRETCH, ZOOM, STRIP = 512, 2, 28  # of a sequence: samples shown, pixels a sample, height
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


def draw_errors(image: Array, target: Array, pred: Array) -> Array:
    """The image dimmed, with wrong pixels in red; what is ignored is never wrong."""
    dim = (to_rgb(image) * 0.35).astype(np.uint8)
    dim[(pred != target) & (target != IGNORE_INDEX)] = RED
    return dim


def to_2d_view(image: Array, target: Array, pred: Array) -> tuple[Array, Array, Array]:
    """What is drawn of a sample, each (H, W) or (H, W, C): a picture; of a volume a slice; of a sequence a stretch.

    Slices are cut across the volume's shortest axis, which makes them the largest; stretches have ``STRETCH`` samples,
    each drawn ``ZOOM`` pixels wide. The one with the most varied labels is taken.
    """
    if target.ndim == 3:
        axis = int(np.argmin(target.shape))
        place = highest_entropy(np.moveaxis(target, axis, 0))
        image, target, pred = (np.take(values, place, axis) for values in (image, target, pred))
    if target.ndim == 1:
        length = min(STRETCH, len(target))
        begins = range(0, len(target) - length + 1, max(1, length // 4))
        begin = begins[highest_entropy(np.stack([target[first : first + length] for first in begins]))]
        rows = (values[None, begin : begin + length] for values in (image, target, pred))
        image, target, pred = (values.repeat(STRIP, 0).repeat(ZOOM, 1) for values in rows)
    return image, target, pred


def highest_entropy(targets: Array) -> int:
    """The place of the target (N, *S) with the most information: the entropy of its labels, times their number."""
    flat = targets.reshape(len(targets), -1)
    counts = np.stack([np.bincount(labels, minlength=256)[:IGNORE_INDEX] for labels in flat])
    return int((counts.sum(1) * label_entropy(counts)).argmax())


def panel(image: Array, target: Array, pred: Array, colors: Sequence[Sequence[int]]) -> Array:
    """image, truth, prediction and errors: (H, 4 W + gaps, 3) uint8 side by side, a sequence's under one another."""
    axis = 0 if target.ndim == 1 else 1
    image, target, pred = to_2d_view(image, target, pred)
    parts = [to_rgb(image), colorize(target, colors), colorize(pred, colors), draw_errors(image, target, pred)]
    bar = np.full_like(parts[0].take(range(GAP), axis), 255)
    return np.concatenate([piece for part in parts for piece in (part, bar)][:-1], axis)


def prediction_grid(
    panels: Sequence[Array], classes: Sequence[str], colors: Sequence[Sequence[int]], spatial_dims: int
) -> Image.Image:
    """Panels of a data set under one another, with titles and a legend of the classes."""
    font = ImageFont.load_default(size=13)
    left, top, gap = (90, 6, 4 * GAP) if spatial_dims == 1 else (0, 22, GAP)
    width = max(320, *(left + piece.shape[1] for piece in panels))
    legend = layout_legend(classes, font, width)
    bottom = 20 * (1 + max(row for row, _ in legend)) + 6
    height = top + sum(len(piece) + gap for piece in panels) + bottom
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    y = top
    for piece in panels:
        page.paste(Image.fromarray(piece), (left, y))
        for place, title in enumerate(TITLES if spatial_dims == 1 else ()):
            draw.text((2, y + place * (STRIP + GAP) + STRIP // 2 - 8), title, "black", font)
        y += len(piece) + gap
    for place, title in enumerate(() if spatial_dims == 1 else TITLES):
        draw.text((place * (panels[0].shape[1] + GAP) / 4 + 2, 3), title, "black", font)
    draw_legend(draw, y, legend, classes, colors, font)
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


def draw_legend(
    draw: ImageDraw.ImageDraw,
    top: int,
    places: Sequence[tuple[int, int]],
    classes: Sequence[str],
    colors: Sequence[Sequence[int]],
    font,
) -> None:
    """Every class's colour and name below ``top``, at the places of :func:`layout_legend`."""
    for (row, x), name, color in zip(places, classes, colors, strict=False):
        draw.rectangle((x, top + 20 * row + 5, x + 12, top + 20 * row + 17), tuple(color), "black")
        draw.text((x + 17, top + 20 * row + 3), name, "black", font)


def draw_confusion_matrix(counts: Array, classes: Sequence[str]) -> Array:
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
