"""Tests of the patterns of file names, and of the patterns that a message proposes."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import CLASSES, noise, save, sentence
from omegaconf import OmegaConf
from test_data_check import parse_overrides

from unet.data.files import match_case
from unet.data.folder import Folder
from unet.data.patterns import FilePattern
from unet.errors import UserError
from unet.io.config_keys import rename_old_keys
from unet.runs.run_names import quote_path, quote_words

N = range(6)


def write(root: Path, image: str, mask: str, numbers=N) -> None:
    """Write an image with many values and a mask with two for each number ``n`` in the patterns."""
    for n in numbers:
        save(root / image.format(n=n, patient=n // 3), noise(12, 10, 3, seed=n))
        save(root / mask.format(n=n, patient=n // 3), noise(12, 10, below=2, seed=n) * np.uint8(255))


LAYOUTS = {
    "other folders": ("imgs/n{n}.png", "labels/n{n}.png", "imgs/{id}.*", "labels/{id}.*"),
    "two prefixes": ("images/image_{n:02}.png", "masks/mask_{n:02}.png", "images/image_{id}.*", "masks/mask_{id}.*"),
    "Carvana": ("images/car{n}.jpg", "masks/car{n}_mask.gif", "images/{id}.*", "masks/{id}_mask.*"),
    "sub-folders": ("images/p{patient}/{n}.png", "masks/p{patient}/{n}.png", "images/**/{id}.*", "masks/**/{id}.*"),
    "side by side": ("P_{patient}/P_{n}.tif", "P_{patient}/P_{n}_mask.tif", "**/{id}.*", "**/{id}_mask.*"),
    "one folder, other suffixes": ("{n}.jpg", "{n}.png", "{id}.jpg", "{id}.png"),
    "a prefix": ("photos/a b {n}.png", "truth/gt-a b {n}.png", "photos/{id}.*", "truth/gt-{id}.*"),
    "umlauts and brackets": ("Bilder [1]/n{n}.png", "Gebäude/n{n}.png", "Bilder [1]/{id}.*", "Gebäude/{id}.*"),
    "a folder an image": ("{n}/t1.png", "{n}/seg.png", "**/{id}/t1.*", "**/{id}/seg.*"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_message_proposes_the_patterns_that_fit(tmp_path, layout):
    image, mask, *expected = LAYOUTS[layout]
    write(tmp_path, image, mask)
    with pytest.raises(UserError) as error:
        _ = Folder(str(tmp_path), CLASSES).items
    words = shlex.split(sentence(error, "; if this is right, add ").rpartition(" add ")[2])
    patterns = parse_overrides(tuple(quote_path(word) for word in words))
    assert [patterns["image"], patterns["mask"]] == expected
    items = Folder(str(tmp_path), CLASSES, **patterns).items
    assert sum(map(len, items.values())) == len(N)


def propose(root: Path) -> dict:
    """Return the overrides that the message proposes."""
    with pytest.raises(UserError) as error:
        _ = Folder(str(root), CLASSES).items
    return parse_overrides(tuple(shlex.split(sentence(error, " add ").rpartition(" add ")[2])))


def test_the_proposed_patterns_have_the_splits_and_their_sub_folders(tmp_path):
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        for kind in ("labelIds", "color"):
            name = f"gtFine/{split}/town/t_{{n}}_gtFine_{kind}.png"
            write(tmp_path, f"leftImg8bit/{split}/town/t_{{n}}_leftImg8bit.png", name, numbers)
    for path in tmp_path.rglob("*_color.png"):
        save(path, noise(12, 10, 3, below=2))
    patterns = propose(tmp_path)
    assert patterns == {
        "image": "leftImg8bit/{split}/town/{id}_leftImg8bit.*",
        "mask": "gtFine/{split}/town/{id}_gtFine_labelIds.*",
    }
    patterns = {key: pattern.replace("/town/", "/**/") for key, pattern in patterns.items()}
    source = Folder(str(tmp_path), CLASSES, **patterns)
    assert {split: len(items) for split, items in source.items.items()} == {"train": 4, "val": 2}
    assert list(source.pairs()["val"]) == ["town/t_4", "town/t_5"]


LAYOUTS_OF_SPLITS = {
    "CamVid": ("{s}/{n}.png", "{s}annot/{n}.png", "{split}/{id}.*", "{split}annot/{id}.*"),
    "Cityscapes": (
        "left/{s}/{s}burg/{n}_left.png",
        "gt/{s}/{s}burg/{n}_gt.png",
        "left/{split}/**/{id}_left.*",
        "gt/{split}/**/{id}_gt.*",
    ),
    "roads": ("{s}/sat/{n}.tiff", "{s}/map/{n}.tif", "{split}/sat/{id}.*", "{split}/map/{id}.*"),
    "Massachusetts": (
        "tiff/{s}/{n}.tiff",
        "tiff/{s}_labels/{n}.tif",
        "tiff/{split}/{id}.*",
        "tiff/{split}_labels/{id}.*",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS_OF_SPLITS)
def test_splits_of_public_data_sets_are_kept(tmp_path, layout):
    image, mask, *expected = LAYOUTS_OF_SPLITS[layout]
    for split, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        write(tmp_path, image.replace("{s}", split), mask.replace("{s}", split), numbers)
    patterns = propose(tmp_path)
    assert [patterns["image"], patterns["mask"]] == expected
    items = Folder(str(tmp_path), CLASSES, **patterns).items
    assert {split: len(members) for split, members in items.items()} == {"train": 4, "val": 2, "test": 2}


def test_folders_of_patients_with_images_and_masks(tmp_path):
    write(tmp_path, "p{patient}/images/{n}.png", "p{patient}/masks/{n}.png")
    patterns = propose(tmp_path)
    assert patterns == {"image": "**/images/{id}.*", "mask": "**/masks/{id}.*"}
    items = Folder(str(tmp_path), CLASSES, **patterns).all_items()
    assert [item.read.name for item in items] == [f"p{n // 3}/{n}" for n in N]


def test_masks_of_objects_are_not_proposed_for_classes(tmp_path):
    write(tmp_path, "JPEGImages/{n}.jpg", "SegmentationClass/{n}.png")
    write(tmp_path, "JPEGImages/{n}.jpg", "SegmentationObject/{n}.png")
    assert propose(tmp_path)["mask"] == "SegmentationClass/{id}.*"


def test_few_masks_are_not_proposed_as_the_images(tmp_path):
    write(tmp_path, "images/{n}.png", "masks/{n}.png", range(12))
    for n in range(9):
        (tmp_path / f"masks/{n}.png").unlink()
    with pytest.raises(UserError) as error:
        _ = Folder(str(tmp_path), CLASSES).items
    assert "if this is right" not in sentence(error, "0.png and 8 more images: no mask")


def test_the_proposed_patterns_have_channels(tmp_path):
    for n in N:
        for channel in range(3):
            save(tmp_path / f"images/case{n}_{channel:04}.png", noise(12, 10, seed=n + 10 * channel))
        save(tmp_path / f"masks/case{n}.png", noise(12, 10, below=2, seed=n))
    settings = propose(tmp_path)
    assert settings["image"] == "images/{id}_{channel}.*" and settings["channels"] == ["0000", "0001", "0002"]
    source = Folder(str(tmp_path), CLASSES, **settings | {"channels": ["0002", "0000"]})
    image, _ = next(item for item in source.items["train"] if "case3" in item.name).read()
    assert (image == np.stack([noise(12, 10, seed=23), noise(12, 10, seed=3)], -1)).all(), "in the order of the key"
    (tmp_path / "images/case4_0002.png").unlink()
    with pytest.raises(UserError, match="case4: no file of channel 0002"):
        _ = Folder(str(tmp_path), CLASSES, **settings).items


def test_one_mask_folder_a_class_is_refused(tmp_path):
    for name in ("cell", "nucleus"):
        write(tmp_path, "images/{n}.png", f"masks/{name}/{{n}}.png")
    with pytest.raises(UserError) as error:
        _ = Folder(str(tmp_path), CLASSES).items
    sentence(error, "one mask folder a class (masks/cell, masks/nucleus)", "not supported")


def test_folders_of_splits_have_several_names(tmp_path):
    for split in ("Training", "valid", "testing"):
        write(tmp_path, f"{split}/images/{split}{{n}}.png", f"{split}/masks/{split}{{n}}.png", range(2))
    source = Folder(str(tmp_path), CLASSES)
    assert {split: len(items) for split, items in source.items.items()} == {"train": 2, "val": 2, "test": 2}
    without = Folder(str(tmp_path), CLASSES, splits={"train": 1, "val": 1, "test": None})
    assert list(without.items) == ["train", "val"]
    with pytest.raises(UserError, match=r"the folders of .* are the splits already"):
        _ = Folder(str(tmp_path), CLASSES, splits={"train": 1, "val": "val.txt"}).items


def test_a_split_may_be_a_folder_below_the_kind(tmp_path):
    for split in ("train", "val"):
        write(tmp_path, f"images/{split}/{{n}}.png", f"masks/{split}/{{n}}.png", range(3))
    patterns = propose(tmp_path)
    assert patterns == {"image": "images/{split}/{id}.*", "mask": "masks/{split}/{id}.*"}
    source = Folder(str(tmp_path), CLASSES, **patterns)
    assert {split: len(items) for split, items in source.items.items()} == {"train": 3, "val": 3}


def test_names_have_their_sub_folders_in_groups_lists_and_splits(tmp_path):
    write(tmp_path, "images/p{patient}/{n}.png", "masks/p{patient}/{n}.png", range(9))
    (tmp_path / "val.txt").write_text("p1/3\np1/4.png\np1/5\n")
    patterns: dict[str, Any] = {"image": "images/**/{id}.*", "mask": "masks/**/{id}.*"}
    splits = {"train": 1, "val": "val.txt"}
    source = Folder(str(tmp_path), CLASSES, **patterns, splits=splits, group="^(p\\d)/")
    assert [Path(item.name).parent.name for item in source.items["val"]] == ["p1"] * 3
    assert len(source.items["train"]) == 6
    (tmp_path / "val.txt").write_text("p1/3\n")
    with pytest.raises(UserError, match="both of the group p1"):
        _ = Folder(str(tmp_path), CLASSES, **patterns, splits=splits, group="^(p\\d)/").items


def test_names_that_differ_in_case_are_matched_where_that_is_unambiguous(tmp_path):
    write(tmp_path, "images/IMG_{n}.PNG", "masks/img_{n}.png")
    assert sum(map(len, Folder(str(tmp_path), CLASSES).items.values())) == len(N)
    images, masks = [("", "A", ""), ("", "a", ""), ("", "B", "")], [("", "a", ""), ("", "b", ""), ("", "c", "")]
    assert match_case(images, masks) == {("", "a", ""): ("", "a", ""), ("", "B", ""): ("", "b", "")}
    assert match_case(images, [("", "A", ""), ("", "b", ""), ("", "B", "")])[("", "B", "")] == ("", "B", "")
    assert match_case([("", "x", ""), ("", "X", "")], [("", "x", "")]) == {("", "x", ""): ("", "x", "")}


def test_characters_of_globs_and_regular_expressions_stand_for_themselves(tmp_path):
    root = tmp_path / "my data (1) [x]"
    write(root, "a+b [im]/{n}.png", "a+b (ma)/{n}_(m).png")
    source = Folder(str(root), CLASSES, image="a+b [im]/{id}.png", mask="a+b (ma)/{id}_(m).png")
    assert sum(map(len, source.items.values())) == len(N)


def test_a_file_belongs_to_one_item(tmp_path):
    write(tmp_path, "{n}.tif", "{n}_mask.tif")
    found = FilePattern("{id}*.tif", {".tif"}).find(tmp_path)
    assert len(found) == 2 * len(N), "* is no part of the name"
    source = Folder(str(tmp_path), CLASSES, image="{id}.tif", mask="{id}_mask.tif")
    assert {Path(item.name).stem for items in source.items.values() for item in items} == set(map(str, N))
    save(tmp_path / "3_b_mask.tif", noise(12, 10, below=2))
    with pytest.raises(UserError, match=r"3_b_mask\.tif: a mask without an image"):
        _ = Folder(str(tmp_path), CLASSES, image="{id}.tif", mask="{id}_mask.tif").items


def test_links_to_a_folder_above_end(tmp_path):
    write(tmp_path, "images/a/{n}.png", "masks/a/{n}.png")
    (tmp_path / "images/a/up").symlink_to(tmp_path / "images")
    assert len(FilePattern("images/**/{id}.*", {".png"}).find(tmp_path)) == len(N)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"image": "images/*.png"}, "data.source.image: expected a pattern with {id}"),
        ({"image": "images/{ID}{id}.png"}, "{ID} is no placeholder"),
        ({"image": "../images/{id}.png"}, "below data.root"),
        ({"image": "**/{id}.png"}, "** in both or in none"),
        ({"image": "masks/{id}.*"}, "expected a pattern other than data.source.image"),
        ({"image": "images/{id}_{channel}.png"}, "data.source.channels: expected a list"),
        ({"channels": ["0000", "0001"]}, "{channel} in data.source.image"),
        ({"image": 3}, "data.source.image: expected a pattern"),
    ],
)
def test_invalid_patterns_are_refused(tmp_path, settings: dict[str, Any], words):
    with pytest.raises(UserError) as error:
        Folder(str(tmp_path), CLASSES, **settings)
    sentence(error, words)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", "images/{n}.png", "masks/{n}.png")
    assert len(Folder("~/data", CLASSES).items["train"]) == 4


def test_the_config_of_an_older_run_is_read():
    target = {"_target_": "unet.data.folder.Folder"}
    config = OmegaConf.create({"data": {"source": {**target, "mask_stem": "{stem}_mask"}}})
    rename_old_keys(config)
    patterns = {**target, "image": "images/{id}.*", "mask": "masks/{id}_mask.*"}
    assert config.data.source == {**patterns, "folds": 5, "split_seed": 0}, "so that an unfinished run can be resumed"


def test_words_that_are_not_ascii_need_no_quotes():
    quoted = quote_words("data.source.values={0: Straße, 255: Gebäude}")
    assert parse_overrides((quoted,)) == {"values": {0: "Straße", 255: "Gebäude"}}
    assert quote_words("a=[x") == "a=[x" and quote_words("a=[ä") == "a=[ä"
