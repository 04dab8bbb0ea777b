"""NIfTI files: slices, orientations, voxel sizes, and masks on the grid of their image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import needs_volumes
from folders import CLASSES, noise, scanned, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import network

from unet.data.files import FilePair
from unet.data.folder import Folder
from unet.data.label_map import LabelMap
from unet.data.source import Item
from unet.data_check.findings import collect_findings
from unet.data_check.survey import survey_data
from unet.diagnostics.diagnose import pixel_sizes
from unet.errors import UserError
from unet.inference.options import PredictOptions
from unet.io.image_reader import open_image
from unet.prediction.predict_file import predict_file
from unet.prediction.predict_folder import DONE, BatchOptions, predict_files
from unet.training.file_headers import volume_grid


@needs_volumes
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 1), (9, 8, 7, 2), (9, 8, 1, 2), (9, 8, 7, 1)])
def test_nifti(tmp_path: Path, shape: tuple[int, ...], suffix: str, dtype: str):
    voxels = noise(*shape, below=200).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"a{suffix}")
    dims = 2 if shape[2] == 1 else 3
    expected = voxels.reshape(*(n for n in shape[:3] if n > 1), -1)
    reader = open_image(tmp_path / f"a{suffix}", dims)
    assert np.array_equal(reader.pixels(), expected)
    assert np.array_equal(reader.rows(2, 5), expected[2:5])


@needs_volumes
@settings(max_examples=40, deadline=None)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_a_mask_is_read_on_the_grid_of_its_image(tmp_path_factory, order: list[int], flips: tuple[bool, ...]):
    """Every orientation of a mask gives the labels of the voxels at the same positions in the patient."""
    folder = tmp_path_factory.mktemp("nifti")
    labels = noise(5, 6, 7, below=2)
    affine = np.array([[2.0, 0.1, 0, -30], [-0.1, 2.5, 0, 12], [0, 0, 4, 7], [0, 0, 0, 1]])  # oblique
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.float32), affine), folder / "image.nii")
    image = nibabel.Nifti1Image(labels, affine)
    orientation = [[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)]
    nibabel.save(image.as_reoriented(np.array(orientation)), folder / "mask.nii")
    pixels, target = FilePair(folder / "image.nii", folder / "mask.nii", LabelMap(None, CLASSES))()
    assert np.array_equal(target, labels) and np.array_equal(pixels[..., 0], labels)


@needs_volumes
def test_a_mask_on_another_grid_is_refused(tmp_path: Path):
    labels = noise(5, 6, 7, below=2)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "image.nii")
    for number, affine in enumerate([np.diag([2.0, 1, 1, 1]), np.eye(4) + np.eye(4, k=3), np.diag([-1.0, 1, 1, 1])]):
        nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / f"{number}.nii")
        with pytest.raises(UserError) as error:
            FilePair(tmp_path / "image.nii", tmp_path / f"{number}.nii", LabelMap(None, CLASSES))()
        sentence(error, f"{number}.nii: its affine places 5 x 6 x 7 voxels", "image.nii", "resample the mask")


@needs_volumes
def test_a_slice_and_its_mask_are_a_2_d_image(tmp_path: Path):
    labels = noise(6, 5, 1, below=2)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / "image.nii")
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 5
    nibabel.save(nibabel.Nifti1Image(labels[::-1], mirrored), tmp_path / "mask.nii")
    pixels, target = FilePair(tmp_path / "image.nii", tmp_path / "mask.nii", LabelMap(None, CLASSES))()
    assert np.array_equal(target, labels[..., 0]) and np.array_equal(pixels, labels)


@needs_volumes
def test_voxels_of_another_size_or_direction_are_found_and_make_a_prediction_doubtful(tmp_path: Path):
    def write(name: str, affine: np.ndarray, seed: int) -> Path:
        path = tmp_path / name / f"{seed}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        values = noise(8, 8, 8, below=200 if name == "images" else 2, seed=seed).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        return path

    usual, coarse, mirrored = np.eye(4), np.diag([1.0, 1, 3, 1]), np.diag([-1.0, 1, 1, 1])
    for seed in range(6):
        for name in ("images", "masks"):
            write(name, usual, seed)
    data = scanned(tmp_path, splits={"train": 1, "val": 1})
    description = volume_grid(data.samples["train"])
    assert description == {"axes": "RAS", "spacing": [[1.0] * 3] * 2}
    model = network(tmp_path, 3, 1, **description)
    messages: list[str] = []
    for affine in (usual, coarse, mirrored):
        predict_file(
            model, write("other", affine, 0), tmp_path / "labels.nii.gz", PredictOptions(), warn=messages.append
        )
    assert len(messages) == 2 and "voxels are 1 x 1 x 3 mm" in messages[0] and "point to LAS" in messages[1]
    with pytest.raises(UserError, match="strict=true"):
        predict_file(model, write("other", coarse, 0), tmp_path / "no.nii.gz", PredictOptions(strict=True))
    assert not (tmp_path / "no.nii.gz").exists()
    for name in ("images", "masks"):
        write(name, coarse, 4)
        write(name, mirrored, 5)
    survey = survey_data(Folder(str(tmp_path), CLASSES, splits={"train": 1, "val": 1}))
    texts = {
        finding.text.split(":")[0]: finding.files for finding in collect_findings(survey) if "differ" in finding.text
    }
    assert texts == {
        "images differ in the directions of their axes": (str(tmp_path / "images" / "5.nii.gz"),),
        "images differ in the size of their voxels": (str(tmp_path / "images" / "4.nii.gz"),),
    }


@needs_volumes
def test_labels_of_a_slice_are_a_slice_in_the_same_place(tmp_path: Path):
    affine = np.diag([-1.0, 2, 3, 1])
    nibabel.save(nibabel.Nifti1Image(noise(40, 30, 1).astype(np.float32), affine), tmp_path / "a.nii.gz")
    (result,) = predict_files(network(tmp_path, 2, 1), [tmp_path / "a.nii.gz"], BatchOptions(tmp_path / "out", "x"))
    labels = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert result.state == DONE and labels.shape == (40, 30, 1) and np.array_equal(labels.affine, affine)


@needs_volumes
@pytest.mark.parametrize("fault", ["no affine", "two affines"])
def test_a_flip_by_an_uncertain_affine_is_refused(tmp_path: Path, fault: str):
    labels = noise(5, 6, 7, below=2)
    centred = np.eye(4)
    centred[:3, 3] = -2, -2.5, -3
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = 2, -2.5, -3
    image, mask = nibabel.Nifti1Image(labels.astype(np.float32), centred), nibabel.Nifti1Image(labels, mirrored)
    image.set_sform(centred, 1)
    image.set_qform(mirrored if fault == "two affines" else centred, 1)
    for header in [mask.header] * (fault == "no affine"):
        header["sform_code"] = header["qform_code"] = 0
    nibabel.save(image, tmp_path / "image.nii")
    nibabel.save(mask, tmp_path / "mask.nii")
    with pytest.raises(UserError) as error:
        FilePair(tmp_path / "image.nii", tmp_path / "mask.nii", LabelMap(None, CLASSES))()
    found = "mask.nii has no affine" if fault == "no affine" else "image.nii has an sform and a qform that differ"
    sentence(error, "mask.nii: its axes are flipped or swapped", found, "save both files with one affine")


@needs_volumes
def test_labels_of_a_nifti_mask_with_a_scale_factor_are_integers(tmp_path: Path):
    """nibabel scales floats to the range of an integer type: 1 is read as 1.0000000591."""
    labels = noise(5, 6, 7, below=2)
    mask = nibabel.Nifti1Image(labels.astype(np.float32), np.eye(4))
    mask.header.set_data_dtype(np.uint8)
    nibabel.save(mask, tmp_path / "mask.nii")
    assert not np.array_equal(nibabel.load(tmp_path / "mask.nii").get_fdata(), labels)
    assert np.array_equal(LabelMap(None, CLASSES).read(tmp_path / "mask.nii"), labels)


@needs_volumes
def test_a_nifti_file_of_two_axes_is_an_image(tmp_path: Path):
    labels = noise(6, 5, below=2)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / "image.nii")
    for name, shape in (("a.nii", (6, 5)), ("b.nii", (6, 5, 1))):
        nibabel.save(nibabel.Nifti1Image(labels.reshape(shape), np.eye(4)), tmp_path / name)
        pixels, target = FilePair(tmp_path / "image.nii", tmp_path / name, LabelMap(None, CLASSES))()
        assert np.array_equal(target, labels) and np.array_equal(pixels[..., 0], labels)


@needs_volumes
def test_the_size_of_the_voxels_of_an_item_is_that_of_its_file(tmp_path: Path):
    affine = np.diag([0.5, 0.75, 3.0, 1.0])
    for name in ("image", "mask"):
        nibabel.save(nibabel.Nifti1Image(noise(8, 9, 5, below=2), affine), tmp_path / f"{name}.nii.gz")
    pair = FilePair(tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", LabelMap(None, CLASSES))
    data: Any = SimpleNamespace(
        samples={"test": SimpleNamespace(items=[Item("a", pair), Item("b", lambda: pair())])},
        transforms={"eval": []},
        source=SimpleNamespace(spatial_dims=3),
    )
    assert list(pixel_sizes(data, "test")) == [(0.5, 0.75, 3.0), None]
    data.source.spatial_dims = 2  # a slice
    assert next(pixel_sizes(data, "test")) == (0.5, 0.75)
    (tmp_path / "image.nii.gz").rename(tmp_path / "gone.nii.gz")
    assert next(pixel_sizes(data, "test")) is None
    (tmp_path / "gone.nii.gz").rename(tmp_path / "image.nii.gz")
    data.transforms["eval"] = [object()]  # which may resize it
    assert next(pixel_sizes(data, "test")) is None
