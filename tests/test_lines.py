"""Blue Marble's scan lines: the splits of the rows, and their pixels."""

import numpy as np
import pytest

from unet.data.blue_marble import load_map
from unet.data.blue_marble_lines import BAND, SKIPPED_ROWS, BlueMarbleLines, row_splits


def test_bands_alternate_between_splits_with_a_gap():
    splits = row_splits(2115)
    assert [splits[band * BAND] for band in range(11)] == [
        "train", "val", "train", "test", "train", "train", "test", "train", "val", "train", "train",
    ]  # fmt: skip
    assert {split: splits.count(split) for split in set(splits)} == {"train": 945, "val": 315, "test": 315, None: 540}
    for row, split in enumerate(splits):
        neighbours = set(splits[row : row + SKIPPED_ROWS + 1]) - {None}
        assert split is None or neighbours == {split}, "rows of two splits are further apart than the gap"


def test_the_split_seed_rotates_the_bands():
    cycle = [row_splits(5 * BAND, seed)[::BAND] for seed in range(10)]
    assert cycle[1] == ["val", "train", "test", "train", "train"] and cycle[5] == [
        "train", "test", "train", "val", "train",
    ]  # fmt: skip
    divisions = [row_splits(2115, seed) for seed in range(10)]
    assert len(set(map(tuple, divisions))) == 10 and row_splits(2115, 10) == divisions[0]
    for splits in divisions:
        assert [splits.count(split) for split in ("train", "val", "test")] == [945, 315, 315]


def test_lines_are_rows_of_the_image_and_every_split_has_every_class():
    source, (image, target) = BlueMarbleLines(gamma=1), load_map()
    assert source.spatial_dims == 1 and source.num_classes == 3
    for split, items in source.items.items():
        counts = np.zeros(256, np.int64)
        for item in items:
            row = int(item.name.rsplit(" ", 1)[1])
            line, labels = item.read()
            assert row_splits(len(target))[row] == split
            assert line.shape == (5400, 3) and (line == image[row]).all() and (labels == target[row]).all()
            counts += np.bincount(labels, minlength=256)
        frequencies = counts[:3] / counts[:3].sum()
        assert frequencies[0] == pytest.approx(0.70, abs=0.03) and 0.002 < frequencies[2] < 0.005
        assert counts[3:255].sum() == 0
    assert (BlueMarbleLines(0.5).items["val"][0].read()[0] >= source.items["val"][0].read()[0]).all(), "brighter"
