"""Pictures of predictions: each image under its labels' colours, and a sheet of many."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unet.data.source import Array
from unet.pictures import colorize, draw_legend, layout_legend, shown, to_rgb
from unet.record import whole

LONGEST = 2048
"""Samples along the longer side of an overlay; of a larger picture every second, third, ... sample is shown."""
OPAQUE = 0.45
THUMBNAIL, COLUMNS, MOST, LINE = 240, 5, 40, 18


class Overlay:
    """Gathers what an overlay shows of an image, band by band, and saves it to ``file`` as PNG."""

    def __init__(self, file: IO[bytes], size: Sequence[int], colors: Sequence[Sequence[int]]):
        self.file, self.colors = file, colors
        self.step = -(-max(size) // LONGEST) if len(size) == 2 else 1
        self.images: list[Array] = []
        self.labels: list[Array] = []
        self.seen = 0

    def write(self, image: Array, labels: Array) -> None:
        """Rows (n, *S[1:], C) of the image and (n, *S[1:]) of its labels."""
        first = -self.seen % self.step
        kept = (slice(first, None, self.step), slice(None, None, self.step))[: labels.ndim]
        self.images.append(image[kept].copy())
        self.labels.append(labels[kept].copy())
        self.seen += len(labels)

    def close(self) -> None:
        image, labels = np.concatenate(self.images), np.concatenate(self.labels)
        image, labels, _ = shown(image, labels, labels)
        Image.fromarray(overlaid(to_rgb(image), labels, self.colors)).save(self.file, "PNG")


def overlaid(image: Array, labels: Array, colors: Sequence[Sequence[int]]) -> Array:
    """An RGB image (H, W, 3) under its labels' (H, W) colours, uint8."""
    mixed = (1 - OPAQUE) * image + OPAQUE * colorize(labels, colors)
    return mixed.round().astype(np.uint8)


def contact_sheet(
    path: Path, overlays: Sequence[Path], classes: Sequence[str], colors: Sequence[Sequence[int]]
) -> None:
    """The first ``MOST`` overlays small, with their names, and a legend of the classes."""
    font = ImageFont.load_default(size=12)
    chosen = overlays[:MOST]
    columns = min(COLUMNS, len(chosen))
    width = columns * (THUMBNAIL + 6) + 6
    legend = layout_legend(classes, font, width)
    rows = -(-len(chosen) // columns)
    top = 20 * (1 + max(row for row, _ in legend)) + 8
    page = Image.new("RGB", (width, top + rows * (THUMBNAIL + LINE + 6)), "white")
    draw = ImageDraw.Draw(page)
    draw_legend(draw, 0, legend, classes, colors, font)
    for number, overlay in enumerate(chosen):
        x = 6 + number % columns * (THUMBNAIL + 6)
        y = top + number // columns * (THUMBNAIL + LINE + 6)
        with Image.open(overlay) as picture:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            page.paste(picture.convert("RGB"), (x, y + LINE))
        draw.text((x, y + 2), overlay.stem[-36:], "black", font)
    with whole(path) as file:
        page.save(file, "PNG")
