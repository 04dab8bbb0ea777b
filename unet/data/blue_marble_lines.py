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
    """

    spatial_dims = 1

    def load_splits(self) -> dict[str, list[Item]]:
        image, target = self.image_and_target()
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for row, split in enumerate(row_splits(len(target))):
            if split is not None:
                splits[split].append(Item(f"blue marble row {row}", partial(in_memory_pair, image[row], target[row])))
        return splits

    def group_of(self, item: Item) -> str:
        """Return the band of a row."""
        return f"blue marble band {int(item.name.rpartition(' ')[2]) // BAND}"


def row_splits(rows: int) -> list[str | None]:
    """Return the split of every row, None for skipped rows."""
    bands = [split for cycle in SPLIT_CYCLES for split in cycle]
    return [bands[row // BAND % len(bands)] if row % BAND < BAND - SKIPPED_ROWS else None for row in range(rows)]
