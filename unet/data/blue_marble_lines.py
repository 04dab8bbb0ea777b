"""Scan lines of NASA's Blue Marble: labelled sequences, one for every row of the image."""

from functools import partial

from unet.data.blue_marble import BlueMarble
from unet.data.source import SPLITS, Item, in_memory_pair

BAND = 47  # rows of a band, 3.1 degrees of latitude; 45 bands make the 2115 rows
SKIPPED_ROWS = (
    12  # rows skipped after each band: a row has 30 % of its coasts in common with the next, 5 % with the twelfth
)
SPLIT_CYCLES = (("train", "val", "train", "test", "train"), ("train", "test", "train", "val", "train"))


class BlueMarbleLines(BlueMarble):
    """The earth line by line: 1,575 rows of 5,400 samples, from 180 W to 180 E, image (5400, 3).

    Neighbouring rows are similar, so whole bands of 35 rows are assigned to splits, with 12 rows skipped between them:
    from north to south five bands are train, val, train, test, train, the next five train, test, train, val, train, and
    so on. Every split thus has bands at all latitudes and every class. Classes, colours and ``gamma`` are those of
    :class:`unet.data.blue_marble.BlueMarble`; the Caspian Sea is ignored as well.

    Args:
        split_seed: rotates the splits of every five bands, and exchanges val and test at 5 to 9; it is not the run's
            seed. Ten divisions differ.
    """

    spatial_dims = 1

    def __init__(self, gamma: float = 1.0, split_seed: int = 0):
        super().__init__(gamma, split_seed)

    def load_splits(self) -> dict[str, list[Item]]:
        image, target = self.image_and_target()
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for row, split in enumerate(row_splits(len(target), self.split_seed)):
            if split is not None:
                splits[split].append(Item(f"blue marble row {row}", partial(in_memory_pair, image[row], target[row])))
        return splits

    def group_of(self, item: Item) -> str:
        """Return the band of a row."""
        return f"blue marble band {int(item.name.rpartition(' ')[2]) // BAND}"


def row_splits(rows: int, seed: int = 0) -> list[str | None]:
    """Return the split of every row, None for skipped rows."""
    return [band_split(row // BAND, seed) if row % BAND < BAND - SKIPPED_ROWS else None for row in range(rows)]


def band_split(band: int, seed: int) -> str:
    """Return the split of a band."""
    cycle = SPLIT_CYCLES[(band // 5 + seed // 5) % 2]
    return cycle[(band + seed) % 5]
