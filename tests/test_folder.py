"""Tests of the folder data set: values of masks, splits, groups and lists; bad_inputs.py has the invalid ones."""

from pathlib import Path

import numpy as np
import pytest
from folders import CLASSES, folder_of, names, noise, scanned, sentence, swap
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from unet.data.folder import Folder
from unet.data.splits import assign_splits
from unet.errors import UserError


def advised_values(root: Path, **options) -> dict:
    """Return the values that the error message suggests, parsed as on the command line."""
    with pytest.raises(UserError) as error:
        scanned(root, **options)
    override = sentence(error, "'data.source.values={").split("'")[1]
    return OverridesParser.create().parse_override(override).value()  # type: ignore[return-value]


def test_the_error_message_suggests_values_for_masks_of_0_and_255(five):
    for path in (five / "masks").iterdir():
        swap(path, noise(12, 10, below=2) * np.uint8(255))
    values = advised_values(five)
    assert values == {0: "background", 255: "cell"}
    assert scanned(five, values=values).samples["train"].item_counts.sum() == 3 * 120


def test_the_error_message_suggests_values_for_unlabelled_pixels(five):
    swap(five / "masks/1.png", np.repeat(np.array([[0, 1, 255]], "uint8"), 12, axis=0).repeat([4, 3, 3], axis=1))
    values = advised_values(five)
    assert values == {0: "background", 1: "cell", 255: "ignore"}
    assert scanned(five, values=values).samples["train"].item_counts[1].tolist() == [48, 36]


def test_the_error_message_suggests_the_keys_of_colours(five):
    for path in (five / "masks").iterdir():
        swap(path, np.where(noise(12, 10, 1, below=2) > 0, np.uint8([128, 0, 64]), np.uint8([0, 0, 0])))
    values = advised_values(five)
    assert values == {"0 0 0": "NAME", "128 0 64": "NAME"}
    data = scanned(five, values=dict(zip(values, CLASSES, strict=True)))
    assert list(data.source.colors) == [(0, 0, 0), (128, 0, 64)]


def test_values_name_the_classes(five):
    for path in (five / "masks").iterdir():
        swap(path, np.uint8([255, 7, 0])[noise(12, 10, below=3)])
    data = scanned(five, classes=None, values={255: "cell", 7: "ignore", 0: "background"})
    assert data.source.classes == ("cell", "background")
    mask, labels = np.uint8([255, 7, 0])[noise(12, 10, below=3)], data.samples["train"][0][1]
    assert np.array_equal(labels == 0, mask == 255) and np.array_equal(labels == 255, mask == 7)


def test_a_pattern_matches_masks_of_another_name(five):
    for path in (five / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert len(scanned(five, mask="masks/{id}_mask.*").samples["train"]) == 3
    with pytest.raises(UserError, match=r"images/0\.png and 4 more images: no mask .*0_other"):
        scanned(five, mask="masks/{id}_other.*")


def test_lists_name_stems_or_files_and_fractions_divide_the_other_images(five):
    items = Folder(str(five), CLASSES, splits={"train": 0.7, "val": "val.txt", "test": None}).items
    assert {split: sorted(names(members)) for split, members in items.items()} == {
        "train": list("012"),
        "val": list("34"),
    }


def test_a_list_may_lie_in_the_working_directory(five, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "mine.txt").write_text("1\n")
    monkeypatch.chdir(elsewhere)
    assert names(Folder(str(five), CLASSES, splits={"train": 1, "val": "mine.txt"}).items["val"]) == ["1"]


def test_fractions_are_observed_and_reproducible(tmp_path):
    folder_of(tmp_path, [str(number) for number in range(40)], size=(2, 2))
    first, again = (Folder(str(tmp_path), CLASSES).items for _ in range(2))
    assert {split: len(items) for split, items in first.items()} == {"train": 28, "val": 6, "test": 6}
    assert {split: names(items) for split, items in first.items()} == {
        split: names(items) for split, items in again.items()
    }
    assert names(first["train"]) != [str(number) for number in range(28)]


def test_each_group_is_in_one_split(tmp_path):
    stems = [f"patient{patient}_{image}" for patient in range(8) for image in range(1 + patient % 3)]
    folder_of(tmp_path, stems, size=(2, 2))
    items = Folder(str(tmp_path), CLASSES, group=r"^(patient\d+)_").items
    patients = {split: {stem.split("_")[0] for stem in names(members)} for split, members in items.items()}
    assert sum(map(len, patients.values())) == 8
    assert sum(map(len, items.values())) == len(stems)


def test_lists_must_not_divide_a_group(tmp_path):
    folder_of(tmp_path, ["a_1", "a_2", "b_1"])
    (tmp_path / "val.txt").write_text("a_2\n")
    with pytest.raises(UserError) as error:
        scanned(tmp_path, splits={"train": 1, "val": "val.txt"}, group="^(.)_")
    sentence(error, "a_1", "a_2", "both of the group a")


def test_split_folders_are_the_splits(tmp_path):
    for split, stems in {"train": ["a", "b"], "val": ["c"]}.items():
        folder_of(tmp_path / split, stems)
    items = Folder(str(tmp_path), CLASSES).items
    assert {split: names(members) for split, members in items.items()} == {"train": ["a", "b"], "val": ["c"]}


FRACTIONS = st.fixed_dictionaries({split: st.floats(0.05, 1) for split in ("train", "val", "test")})


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), FRACTIONS)
def test_groups_are_not_divided_and_no_split_is_empty(sizes, fractions):
    groups = {f"g{index}": [f"g{index}_{image}" for image in range(size)] for index, size in enumerate(sizes)}
    splits = assign_splits(groups, fractions)
    split_of = {stem: split for split, stems in splits.items() for stem in stems}
    assert sum(map(len, splits.values())) == len(split_of) == sum(sizes)
    assert all(len({split_of[stem] for stem in stems}) == 1 for stems in groups.values())
    assert all(splits.values())
