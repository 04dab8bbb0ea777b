"""The folder data set: masks, splits, groups and lists of the user's own."""

from pathlib import Path

import numpy as np
import pytest
from folders import CLASSES, folder_of, names, noise, scanned, sentence, swap
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from unet.data.folder import Folder, assign_splits
from unet.errors import UserError


def advised(root: Path, **options) -> dict:
    """The values that the error advises, parsed as the command line would."""
    with pytest.raises(UserError) as error:
        scanned(root, **options)
    override = sentence(error, "'data.source.values={").split("'")[1]
    return OverridesParser.create().parse_override(override).value()  # type: ignore[return-value]


def test_masks_of_0_and_255_need_a_mapping_which_the_error_prints(five):
    for path in (five / "masks").iterdir():
        swap(path, noise(12, 10, below=2) * np.uint8(255))
    values = advised(five)
    assert values == {0: "background", 255: "cell"}
    assert scanned(five, values=values).samples["train"].item_counts.sum() == 3 * 120


def test_unlabelled_pixels_need_a_mapping_which_the_error_prints(five):
    swap(five / "masks/1.png", np.repeat(np.array([[0, 1, 255]], "uint8"), 12, axis=0).repeat([4, 3, 3], axis=1))
    values = advised(five)
    assert values == {0: "background", 1: "cell", 255: "ignore"}
    assert scanned(five, values=values).samples["train"].item_counts[1].tolist() == [48, 36]


def test_colours_need_a_mapping_whose_keys_the_error_prints(five):
    for path in (five / "masks").iterdir():
        swap(path, np.where(noise(12, 10, 1, below=2) > 0, np.uint8([128, 0, 64]), np.uint8([0, 0, 0])))
    found = advised(five)
    assert found == {"0 0 0": "NAME", "128 0 64": "NAME"}
    data = scanned(five, values=dict(zip(found, CLASSES, strict=True)))
    assert list(data.source.colors) == [(0, 0, 0), (128, 0, 64)]


def test_what_masks_store_names_the_classes(five):
    for path in (five / "masks").iterdir():
        swap(path, np.uint8([255, 7, 0])[noise(12, 10, below=3)])
    data = scanned(five, classes=None, values={255: "cell", 7: "ignore", 0: "background"})
    assert data.source.classes == ("cell", "background")
    stored = np.uint8([255, 7, 0])[noise(12, 10, below=3)]
    assert np.array_equal(data.samples["train"][0][1] == 0, stored == 255)
    assert np.array_equal(data.samples["train"][0][1] == 255, stored == 7)


def test_masks_may_have_names_of_their_own(five):
    for path in (five / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert len(scanned(five, mask_stem="{stem}_mask").samples["train"]) == 3
    with pytest.raises(UserError, match=r"images/0\.png: no mask .*0_other"):
        scanned(five, mask_stem="{stem}_other")


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"classes": None, "values": {0: "ignore", 255: "cell"}}, ("at least two names", "found 1: cell")),
        ({"classes": None}, ("data.source.classes", "'data.source.classes=[background,cell]'")),
        ({"classes": "background"}, ("data.source.classes", "a list")),
        ({"classes": ["cell", "cell"]}, ("data.source.classes", "different")),
        ({"colors": [[0, 0, 0]]}, ("data.source.colors", "expected 2")),
        ({"mask_stem": "mask"}, ("data.source.mask_stem", "{stem}")),
        ({"group": "("}, ("data.source.group", "no regular expression")),
        ({"group": "a.*"}, ("data.source.group", "parentheses")),
        ({"group": "(x)"}, ("image 0", "data.source.group=(x)")),
        ({"splits": {"train": 0.8, "valid": 0.2}}, ("data.source.splits", "valid")),
        ({"splits": {"train": -1, "val": 1}}, ("data.source.splits.train", "-1")),
        ({"splits": {"train": 1}}, ("val", "data.source.splits")),
        ({"splits": {"train": 0.5, "val": "absent.txt"}}, ("absent.txt",)),
        ({"splits": {"train": "train.txt", "val": "train.txt"}}, ("images/0.png", "train", "val")),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(five, options, parts):
    with pytest.raises(UserError) as error:
        scanned(five, **options)
    sentence(error, *parts)


def test_lists_name_stems_or_files_and_shares_take_the_rest(five):
    items = Folder(str(five), CLASSES, splits={"train": 0.7, "val": "val.txt", "test": None}).items
    assert {split: sorted(names(found)) for split, found in items.items()} == {"train": list("012"), "val": list("34")}


def test_a_list_that_names_no_image_says_which_was_meant(tmp_path):
    folder_of(tmp_path, ["street_1", "street_2", "street_3"])
    (tmp_path / "val.txt").write_text("steet_1\n")
    with pytest.raises(UserError, match=r"val\.txt: no image steet_1 .*did you mean street_"):
        scanned(tmp_path, splits={"train": 1, "val": "val.txt"})


def test_a_list_may_lie_in_the_working_directory(five, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "mine.txt").write_text("1\n")
    monkeypatch.chdir(elsewhere)
    assert names(Folder(str(five), CLASSES, splits={"train": 1, "val": "mine.txt"}).items["val"]) == ["1"]


def test_shares_are_kept_and_fixed(tmp_path):
    folder_of(tmp_path, [str(number) for number in range(40)], size=(2, 2))
    first, again = (Folder(str(tmp_path), CLASSES).items for _ in range(2))
    assert {split: len(items) for split, items in first.items()} == {"train": 28, "val": 6, "test": 6}
    assert {split: names(items) for split, items in first.items()} == {
        split: names(items) for split, items in again.items()
    }
    assert names(first["train"]) != [str(number) for number in range(28)]


def test_a_group_is_in_one_split(tmp_path):
    stems = [f"patient{patient}_{image}" for patient in range(8) for image in range(1 + patient % 3)]
    folder_of(tmp_path, stems, size=(2, 2))
    items = Folder(str(tmp_path), CLASSES, group=r"^(patient\d+)_").items
    patients = {split: {stem.split("_")[0] for stem in names(found)} for split, found in items.items()}
    assert sum(map(len, patients.values())) == 8
    assert sum(len(found) for found in items.values()) == len(stems)


def test_lists_that_divide_a_group_are_refused(tmp_path):
    folder_of(tmp_path, ["a_1", "a_2", "b_1"])
    (tmp_path / "val.txt").write_text("a_2\n")
    with pytest.raises(UserError) as error:
        scanned(tmp_path, splits={"train": 1, "val": "val.txt"}, group="^(.)_")
    sentence(error, "a_1", "a_2", "one group (a)")


def test_split_folders_are_the_splits(tmp_path):
    for split, stems in {"train": ["a", "b"], "val": ["c"]}.items():
        folder_of(tmp_path / split, stems)
    items = Folder(str(tmp_path), CLASSES).items
    assert {split: names(found) for split, found in items.items()} == {"train": ["a", "b"], "val": ["c"]}


SHARES = st.fixed_dictionaries({split: st.floats(0.05, 1) for split in ("train", "val", "test")})


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), SHARES)
def test_whole_groups_are_dealt_and_no_split_is_empty(sizes, shares):
    groups = {f"g{place}": [f"g{place}_{image}" for image in range(size)] for place, size in enumerate(sizes)}
    dealt = assign_splits(groups, shares)
    home = {stem: split for split, stems in dealt.items() for stem in stems}
    assert sum(map(len, dealt.values())) == len(home) == sum(sizes)
    assert all(len({home[stem] for stem in stems}) == 1 for stems in groups.values())
    assert all(dealt.values())


def test_too_few_images_cannot_be_divided(tmp_path):
    with pytest.raises(UserError, match=r"2 images or groups cannot be divided .*data\.source\.splits\.test=null"):
        scanned(folder_of(tmp_path, ["a", "b"]), splits={"train": 0.7, "val": 0.15, "test": 0.15})
