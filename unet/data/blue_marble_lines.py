"""Scan lines of NASA's Blue Marble: labelled sequences, one for every row of the picture."""

from functools import partial

from unet.data.blue_marble import BlueMarble
from unet.data.source import SPLITS, Item, in_memory_pair

BAND = 47  # rows of a band, 3.1 degrees of latitude; 45 bands make the 2115 rows
SKIPPED_ROWS = 12  # rows left out after each band: of a row's coasts the next row shares 30 %, the twelfth 5 %
SPLIT_CYCLES = (("train", "val", "train", "test", "train"), ("train", "test", "train", "val", "train"))


class BlueMarbleLines(BlueMarble):
    """The earth line by line: 1,575 rows of 5,400 samples, from 180 W to 180 E, image (5400, 3).

    Neighbouring rows resemble each other, so whole bands of 35 rows are dealt, with 12 rows left out between them: from
    north to south five bands go to train, val, train, test, train, the next five to train, test, train, val, train, and
    so on in turn. Every split so has bands at all latitudes, and every class. Classes, colours and ``gamma`` are those
    of :class:`unet.data.blue_marble.BlueMarble`; the Caspian Sea is ignored here too.
    """

    spatial_dims = 1

    def load_splits(self) -> dict[str, list[Item]]:
        image, target = self.picture()
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for row, split in enumerate(row_splits(len(target))):
            if split is not None:
                splits[split].append(Item(f"blue marble row {row}", partial(in_memory_pair, image[row], target[row])))
        return splits


def row_splits(rows: int) -> list[str | None]:
    """The split of every row, None in a gap."""
    order = [split for hand in SPLIT_CYCLES for split in hand]
    return [order[row // BAND % len(order)] if row % BAND < BAND - SKIPPED_ROWS else None for row in range(rows)]
