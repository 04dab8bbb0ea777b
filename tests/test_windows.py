"""Images that are divided into windows have the pixels, labels and splits of the whole, and need less memory."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import processes
import pytest
import tifffile
from conftest import ROOT, needs_volumes
from folders import CLASSES, noise, save, sentence
from hypothesis import given
from hypothesis import strategies as st

from unet.data.files import FilePair
from unet.data.folder import Folder
from unet.data.source import Item
from unet.data.windows import grid_windows
from unet.errors import UserError
from unet.network.geometry import Window

SIZE = (150, 100)
WINDOW = {"window_size": 64}


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(64, 128))
def test_windows_divide_an_image(size: list[int], length: int):
    counts = np.zeros(size, int)
    for window in grid_windows(size, length):
        assert all(1 <= part.stop - part.start <= length for part in window)
        counts[window] += 1
    assert (counts == 1).all()
    assert len(list(grid_windows(size, length))) == math.prod(-(-n // length) for n in size)


def write_pair(root: Path, stem: str, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write an image and a mask and return both."""
    volume = kind in ("nii", "stack")
    size = (90, 70, 80) if volume else SIZE
    image, mask = noise(*size, 3, seed=seed), noise(*size, below=2, seed=seed)
    for folder, pixels in (("images", image[..., 0] if volume else image), ("masks", mask)):
        path = root / folder / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"photometric": "rgb" if pixels.ndim == 3 and not volume else "minisblack"}
        if kind == "npy":
            np.save(path.with_suffix(".npy"), pixels)
        elif kind == "nii":
            nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path.with_suffix(".nii"))
        else:
            layout = {"tiles": {"tile": (32, 48), "compression": "zlib"}, "strips": {"rowsperstrip": 7}, "stack": {}}
            tifffile.imwrite(path.with_suffix(".tif"), pixels, **layout[kind], **options)
    return image[..., :1] if volume else image, mask


def window_of(item: Item) -> Window:
    assert isinstance(item.read, FilePair)
    return item.read.window


@pytest.mark.parametrize("kind", ["npy", "tiles", "strips", "stack", pytest.param("nii", marks=needs_volumes)])
def test_windows_of_every_format_are_parts_of_the_whole(tmp_path: Path, kind: str):
    pairs = {stem: write_pair(tmp_path, stem, kind, seed) for seed, stem in enumerate("abcd")}
    splits = {"train": 0.5, "val": 0.25, "test": 0.25}
    whole = Folder(str(tmp_path), CLASSES, splits=splits)
    divided = Folder(str(tmp_path), CLASSES, splits=splits, **WINDOW)
    assert divided.spatial_dims == whole.spatial_dims
    for split, items in whole.items.items():
        windows = divided.items[split]
        assert {divided.group_of(item) for item in windows} == {item.name for item in items}
        for item in items:
            image, mask = pairs[Path(item.name).stem]
            joined, labels = np.zeros_like(image), np.zeros_like(mask)
            parts = [part for part in windows if divided.group_of(part) == item.name]
            assert len(parts) == math.prod(-(-n // 64) for n in mask.shape)
            for part in parts:
                window = window_of(part)
                assert part.name == f"{item.name} [{', '.join(f'{axis.start}:{axis.stop}' for axis in window)}]"
                joined[window], labels[window] = part.read()
            assert np.array_equal(joined, image) and np.array_equal(labels, mask)


@needs_volumes
def test_windows_of_a_mask_on_flipped_and_swapped_axes(tmp_path: Path):
    image, mask = write_pair(tmp_path, "a", "nii", 0)
    affine = np.array([[0, -1.0, 0, 89], [1, 0, 0, 0], [0, 0, -1, 79], [0, 0, 0, 1]])  # x = 89 - j, y = i, z = 79 - k
    stored = mask[::-1, :, ::-1].swapaxes(0, 1)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "masks" / "a.nii")
    source = Folder(str(tmp_path), CLASSES, splits={"train": 1.0}, **WINDOW)
    for part in source.all_items():
        window = window_of(part)
        pixels, labels = part.read()
        assert np.array_equal(pixels, image[window]) and np.array_equal(labels, mask[window])


def test_small_images_are_whole(tmp_path: Path):
    for seed, stem in enumerate("ab"):
        save(tmp_path / "images" / f"{stem}.png", noise(64, 60, 3, seed=seed))
        mask = noise(64, 60, below=2, seed=seed)
        with_alpha = np.stack([mask, np.full_like(mask, 255)], -1)  # only masks that are divided may have none
        save(tmp_path / "masks" / f"{stem}.png", with_alpha if stem == "a" else mask)
    items = Folder(str(tmp_path), CLASSES, splits={"train": 0.5, "val": 0.5}, **WINDOW).all_items()
    assert [Path(item.name).name for item in items] == ["a.png", "b.png"]
    assert all(item.read()[1].shape == (64, 60) for item in items)


def test_files_that_cannot_be_read_in_parts_are_refused(tmp_path: Path):
    write_pair(tmp_path, "a", "npy", 0)
    (tmp_path / "images" / "a.npy").unlink()
    save(tmp_path / "images" / "a.png", noise(*SIZE, 3))
    source = Folder(str(tmp_path), CLASSES, splits={"train": 1.0}, **WINDOW)
    with pytest.raises(UserError) as error:
        source.all_items()
    sentence(error, "a.png", "150 x 100", "window_size=64", "TIFF in tiles, .npy or .nii")


def test_masks_whose_channels_decide_are_refused(tmp_path: Path):
    write_pair(tmp_path, "a", "tiles", 0)
    tifffile.imwrite(
        tmp_path / "masks" / "a.tif", noise(*SIZE, 4), photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32)
    )
    source = Folder(str(tmp_path), CLASSES, splits={"train": 1.0}, **WINDOW)
    with pytest.raises(UserError) as error:
        source.all_items()
    sentence(error, "masks/a.tif", "150 x 100 x 4", "without alpha")


def test_an_image_of_another_size_than_its_mask_is_refused(tmp_path: Path):
    write_pair(tmp_path, "a", "npy", 0)
    np.save(tmp_path / "images" / "a.npy", noise(SIZE[0] + 9, SIZE[1], 3))
    source = Folder(str(tmp_path), CLASSES, splits={"train": 1.0}, **WINDOW)
    with pytest.raises(UserError) as error:
        source.all_items()[0].read()
    sentence(error, "a.npy", "its mask is 150 x 100, the image 159 x 100")


@pytest.mark.parametrize("length", [0, 63, True, "big", 64.0])
def test_invalid_window_sizes(length: Any):
    with pytest.raises(UserError) as error:
        Folder("images", CLASSES, window_size=length)
    sentence(error, "data.source.window_size", "at least 64", repr(length))


def test_a_training_on_windows(tmp_path: Path):
    for seed, stem in enumerate("abcdef"):
        write_pair(tmp_path / "data", stem, "tiles", seed)
    command = (
        f"data=folder data.root={tmp_path / 'data'} data.source.classes=[sea,land] data.source.window_size=64 "
        f"data.source.splits.test=0.2 data.crop.picture=48 data.cache_gb=0 model.width=4 model.depth=2 "
        f"trainer.max_epochs=1 data.batch_size=4 num_logged_images=0 feature_maps=0 hydra.run.dir={tmp_path / 'run'}"
    )
    result = processes.run(["train.py", *command.split()], cwd=ROOT)
    assert result.returncode == 0, result.stderr
    counts = np.load(tmp_path / "run" / "confusions.npz")
    assert len(counts["names"]) == 6 * len(set(counts["groups"])) and "[0:50, 0:50]" in counts["names"][0]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/miou"] > 0


@pytest.mark.slow
def test_an_image_needs_no_more_memory_than_its_windows(tmp_path: Path):
    for folder, shape in (("images", (12000, 12000, 3)), ("masks", (12000, 12000))):
        (tmp_path / folder).mkdir()
        np.lib.format.open_memmap(tmp_path / folder / "a.npy", "w+", np.uint8, shape).flush()  # 432 and 144 MB
    code = (
        "import resource, sys\n"
        "from unet.data.folder import Folder\n"
        "from unet.data.samples import Samples\n"
        "items = Folder(sys.argv[1], ['a', 'b'], splits={'train': 1.0}, window_size=1024).all_items()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "samples = Samples(items, 2, 2, 0, 'train')\n"
        "print(len(samples), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT)
    count, mebibytes = result.stdout.split()
    assert int(count) == 12 * 12 and float(mebibytes) < 200, result.stderr
