"""Draw predictions: the class colours over the image, and a contact sheet of thumbnails."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unet.io.atomic import atomic_write
from unet.io.image_formats import Array
from unet.visualization import colorize, draw_legend, layout_legend, to_2d_view, to_rgb

MAX_SIDE = 2048
"""Pixels along the longer side of an overlay; larger images are subsampled."""
OPACITY = 0.45
"""Opacity of the class colours in an overlay."""
THUMBNAIL, COLUMNS, MAX_THUMBNAILS, LINE = 240, 5, 40, 18


class OverlayWriter:
    """A writer of an overlay in bands of rows; :meth:`close` saves it to ``file`` as PNG."""

    def __init__(self, file: IO[bytes], size: Sequence[int], colors: Sequence[Sequence[int]]):
        self.file, self.colors = file, colors
        self.step = -(-max(size) // MAX_SIDE) if len(size) == 2 else 1
        self.images: list[Array] = []
        self.labels: list[Array] = []
        self.num_rows = 0

    def write(self, image: Array, labels: Array) -> None:
        """Add rows (n, *S[1:], C) of the image and (n, *S[1:]) of its labels."""
        first = -self.num_rows % self.step
        subsampled = (slice(first, None, self.step), slice(None, None, self.step))[: labels.ndim]
        self.images.append(image[subsampled].copy())
        self.labels.append(labels[subsampled].copy())
        self.num_rows += len(labels)

    def close(self) -> None:
        image, labels = np.concatenate(self.images), np.concatenate(self.labels)
        image, labels, _ = to_2d_view(image, labels, labels)
        Image.fromarray(blend_labels(to_rgb(image), labels, self.colors)).save(self.file, "PNG")


def blend_labels(image: Array, labels: Array, colors: Sequence[Sequence[int]]) -> Array:
    """Blend an RGB image (H, W, 3) with the colours of its labels (H, W); return uint8."""
    return ((1 - OPACITY) * image + OPACITY * colorize(labels, colors)).round().astype(np.uint8)


def contact_sheet(
    path: Path, overlays: Sequence[Path], classes: Sequence[str], colors: Sequence[Sequence[int]]
) -> None:
    """Write thumbnails of the first ``MAX_THUMBNAILS`` overlays with their names, and a legend of the classes."""
    font = ImageFont.load_default(size=12)
    overlays = overlays[:MAX_THUMBNAILS]
    columns = min(COLUMNS, len(overlays))
    width = columns * (THUMBNAIL + 6) + 6
    legend = layout_legend(classes, font, width)
    rows = -(-len(overlays) // columns)
    top = 20 * (1 + max(row for row, _ in legend)) + 8
    page = Image.new("RGB", (width, top + rows * (THUMBNAIL + LINE + 6)), "white")
    draw = ImageDraw.Draw(page)
    draw_legend(draw, 0, legend, classes, colors, font)
    for index, overlay in enumerate(overlays):
        x = 6 + index % columns * (THUMBNAIL + 6)
        y = top + index // columns * (THUMBNAIL + LINE + 6)
        with Image.open(overlay) as image:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            page.paste(image.convert("RGB"), (x, y + LINE))
        draw.text((x, y + 2), overlay.stem[-36:], "black", font)
    with atomic_write(path) as file:
        page.save(file, "PNG")
