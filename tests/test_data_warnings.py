"""What a training says of doubtful data before it starts."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import needs_volumes
from folders import folder_of, noise, scanned, swap
from PIL import Image

from unet.training.data_warnings import data_warnings

SPLITS = {"splits": {"train": 3.0, "val": 1.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, list("abcdefgh"))


def test_a_sound_folder_is_not_warned_of(folder: Path):
    assert list(data_warnings(scanned(folder, **SPLITS))) == []


def test_images_of_several_types_are_warned_of(folder: Path):
    swap(folder / "images" / "c.png", noise(12, 10, 3))
    np.save(folder / "images" / "c.npy", noise(12, 10, 3, below=60000, dtype="uint16"))
    (folder / "images" / "c.png").unlink()
    (text,) = data_warnings(scanned(folder, **SPLITS))
    assert "c.npy" in text and "differ in type: uint8 (7), uint16 (1)" in text


def test_float_images_in_different_units_are_warned_of(folder: Path):
    for seed, path in enumerate(sorted((folder / "images").iterdir())):
        np.save(path.with_suffix(".npy"), noise(12, 10, 3, seed=seed, dtype="float32") / (255 if seed == 1 else 1))
        path.unlink()
    (text,) = data_warnings(scanned(folder, **SPLITS))
    assert "range from 1 to 255" in text


def test_photographs_that_viewers_rotate_are_warned_of(folder: Path):
    for path in sorted((folder / "images").iterdir()):
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    (text,) = data_warnings(scanned(folder, **SPLITS))
    assert "and 7 more images" in text and "EXIF orientation that the mask does not have" in text


@needs_volumes
def test_volumes_of_different_grids_are_warned_of(tmp_path: Path):
    for seed, affine in enumerate([np.eye(4), np.eye(4), np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 1, 2, 1])]):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
            voxels = noise(6, 6, 6, below=200 if name == "images" else 2, seed=seed).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / name / f"{seed}.nii")
    (tmp_path / "val.txt").write_text("0\n")
    directions, sizes = data_warnings(scanned(tmp_path, splits={"train": 1.0, "val": "val.txt"}))
    assert "point in different directions" in directions and "1 x 1 x 1 to 2 mm" in sizes
