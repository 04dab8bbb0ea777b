"""What a training says of doubtful data before it starts."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import needs_volumes
from folders import CLASSES, folder_of, noise, scanned, sentence, swap
from PIL import Image

from unet.data.folder import Folder
from unet.data_check.findings import collect_findings
from unet.data_check.survey import survey_data
from unet.errors import UserError
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


WRONG_VALUES: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], str]] = {
    "two types": (lambda image, i: image if i % 2 else image.astype(np.uint16) * 257, "images differ in type"),
    "two ranges": (lambda image, i: image.astype(np.float32) / (255 if i % 2 else 1), "the maxima of float images"),
    "two depths": (lambda image, i: image.astype(np.uint16) * (1 if i % 2 else 257), "the maxima of uint16 images"),
    "float nodata": (lambda image, i: with_border(image / 255, -9999), "add data.source.nodata=-9999"),
    "float32": (lambda image, i: with_border(image / 255, -3.4028235e38), "data.source.nodata=-3.40282347e+38"),
    "int16": (lambda image, i: with_border(image.astype(np.int16) * 10, -32768), "data.source.nodata=-32768"),
    "uint16": (lambda image, i: with_border(image.astype(np.uint16), 65535), "data.source.nodata=65535"),
    "uint32": (lambda image, i: image.astype(np.uint32) + np.uint32(3 * 10**9), "less than float32 resolves"),
    "float64": (lambda image, i: image / 1000 + 1.7e9, "less than float32 resolves"),
}


def with_border(image: np.ndarray, value: float) -> np.ndarray:
    image = image.astype(np.float32) if image.dtype == np.float64 else image.copy()
    image[:3] = value
    return image


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_values_that_cannot_be_right_are_warned_of_by_training_and_check(tmp_path: Path, kind: str):
    change, message = WRONG_VALUES[kind]
    folder_of(tmp_path, list("abcdef"))
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        np.save(path.with_suffix(".npy"), change(noise(12, 10, 3, seed=number), number))
    splits = {"splits": {"train": 2, "val": 1}}
    findings = collect_findings(survey_data(Folder(str(tmp_path), CLASSES, **splits)))
    assert [finding.text for finding in findings if message in finding.text]
    if "nodata=" not in message:
        (warning,) = data_warnings(scanned(tmp_path, **splits))
        assert message in warning
        return
    with pytest.raises(UserError) as error:
        scanned(tmp_path, **splits)
    sentence(error, message)
    remedied = scanned(tmp_path, nodata=float(message.partition("nodata=")[2]), **splits)
    assert list(data_warnings(remedied)) == [] and remedied.samples["train"].num_missing == 4 * 30


def test_ordinary_values_are_not_warned_of(tmp_path: Path):
    folder_of(tmp_path, list("abcdef"))
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        image = noise(12, 10, 3, seed=number).astype(np.float32) * (1 + number / 5)
        image[:3] = 0  # the background of a scan
        image[5, 5] = 400
        np.save(path.with_suffix(".npy"), image)
    assert list(data_warnings(scanned(tmp_path, splits={"train": 2, "val": 1}))) == []


def test_training_warns_of_an_exif_orientation_that_the_mask_lacks(tmp_path: Path):
    folder_of(tmp_path, list("abcd"))
    exif = Image.Exif()
    exif[0x112] = 3
    with Image.open(tmp_path / "images" / "b.png") as image:
        image.convert("RGB").save(tmp_path / "images" / "b.jpg", exif=exif)
    (tmp_path / "images" / "b.png").unlink()
    (warning,) = data_warnings(scanned(tmp_path, splits={"train": 2, "val": 2}))
    assert "b.jpg: an EXIF orientation that the mask does not have" in warning
