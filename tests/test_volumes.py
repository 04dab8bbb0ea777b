"""Tests of ICBM152 and of folders of sequences and volumes; bad_inputs.py has the invalid ones."""

import builtins
import importlib.metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_volumes
from folders import noise, scanned
from PIL import Image

from unet.data.icbm152 import SLABS, Icbm152, tissue_labels
from unet.errors import UserError
from unet.io.image_formats import name_parts
from unet.io.image_reader import ReadOptions, open_image


def test_tissue_labels():
    image = np.array([[0, 90, 90, 90, 90]], np.uint8)
    grey = np.array([[0, 200, 20, 100, 100]], np.uint8)
    white = np.array([[0, 55, 230, 55, 90]], np.uint8)
    # outside; grey; white; 100 of both grey and the rest; 100 grey
    assert tissue_labels(image, grey, white).tolist() == [[255, 1, 2, 0, 1]]


@needs_volumes
def test_slabs_of_the_template_are_12_slices_apart():
    items = Icbm152().items
    assert {split: len(volumes) for split, volumes in items.items()} == {"train": 3, "val": 1, "test": 1}
    slabs = sorted((slab.start, slab.stop) for split_slabs in SLABS.values() for slab in split_slabs)
    assert [later[0] - earlier[1] for earlier, later in pairwise(slabs)] == [12, 12, 12, 12]
    for split, volumes in items.items():
        for item in volumes:
            image, target = item.read()
            assert image.shape == (*target.shape, 1) and image.dtype == np.uint8
            assert len(image) == (32 if split == "train" else 16)
            for axis in range(3):
                faces = np.moveaxis(image, axis, 0)[[0, -1]]
                assert faces.any((1, 2, 3)).all(), "no larger than the brain"
            assert (image[..., ::-1, :] == image).all() and (target[..., ::-1] == target).all(), "its own mirror image"
            assert ((target == 255) == (image[..., 0] == 0)).all()
            assert (np.bincount(target.ravel(), minlength=256)[:3] > 10_000).all()
            means = [image[..., 0][target == label].mean() for label in range(3)]
            assert means[0] < 120 < means[1] < 180 < means[2], "fluid is dark, white matter bright"
    test = items["test"][0].read()[1]
    top = test.shape[1] // 2
    assert (test[:, :top] < 255).sum() > (test[:, top:] < 255).sum(), "the crown is at the top"


def test_a_missing_package_is_an_error_with_the_command_to_install_it(monkeypatch):
    def absent(package: str):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(UserError, match=r"t1.* of nilearn is not installed; run: pip install -e '\.\[volumes\]'"):
        Icbm152().load_splits()
    monkeypatch.setattr(importlib.metadata, "files", lambda package: [])
    with pytest.raises(UserError, match="not installed"):
        Icbm152().load_splits()


@pytest.mark.parametrize(
    "name, stem, suffix",
    [("a.nii.gz", "a", ".nii.gz"), ("a.b.NII.GZ", "a.b", ".nii.gz"), ("a.gz", "a", ".gz"), ("a.1.npy", "a.1", ".npy")],
)
def test_stem_and_suffix(name, stem, suffix):
    assert name_parts(Path("x") / name) == (stem, suffix)


HALVES = {"train": 0.5, "val": 0.5}


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = name_parts(path)[1]
    if ending == ".npy":
        np.save(path, array)
    elif ending in (".nii", ".nii.gz"):
        import nibabel

        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)  # type: ignore[attr-defined]
    else:
        pages = [Image.fromarray(page) for page in array] if array.ndim == 3 else [Image.fromarray(array)]
        pages[0].save(path, save_all=len(pages) > 1, append_images=pages[1:])


def arrays_folder(root: Path, size: tuple[int, ...], images: str, masks: str, channels: tuple[int, ...] = ()) -> Path:
    for seed in range(4):
        write(root / "images" / f"v{seed}{images}", noise(*size, *channels, seed=seed))
        write(root / "masks" / f"v{seed}{masks}", noise(*size, below=2, seed=seed))
    return root


@pytest.mark.parametrize(
    "size, images, masks, channels",
    [
        ((30,), ".npy", ".npy", ()),
        ((30,), ".npy", ".npy", (4,)),
        ((12, 10), ".npy", ".npy", (2,)),
        ((12, 10), ".npy", ".png", ()),
        ((6, 8, 10), ".npy", ".npy", ()),
        ((6, 8, 10), ".npy", ".npy", (2,)),
        ((6, 8, 10), ".tif", ".tif", ()),
        ((6, 8, 10), ".tif", ".npy", ()),
        pytest.param((6, 8, 10), ".nii.gz", ".nii", (), marks=needs_volumes),
        pytest.param((6, 8, 10), ".nii", ".nii.gz", (3,), marks=needs_volumes),
        pytest.param((6, 8, 10), ".nii.gz", ".npy", (), marks=needs_volumes),
    ],
)
def test_arrays_and_volumes_are_read_with_their_number_of_axes(tmp_path, size, images, masks, channels):
    data = scanned(arrays_folder(tmp_path, size, images, masks, channels), splits=HALVES)
    assert data.source.spatial_dims == len(size)
    assert data.channels == (channels or (1,))[0]
    sample = data.dataset("train")[0, 0, 0]
    assert sample["image"].shape == (*size, data.channels) and sample["target"].shape == size
    by_stem = {name_parts(Path(item.name))[0]: item for items in data.source.items.values() for item in items}
    image, target = by_stem["v2"].read()
    assert (image.reshape(*size, *channels) == noise(*size, *channels, seed=2)).all()
    assert (target == noise(*size, below=2, seed=2)).all()


def test_values_and_colours_are_mapped_in_arrays_too(tmp_path):
    root = arrays_folder(tmp_path, (6, 8, 10), ".npy", ".npy")
    for path in (root / "masks").iterdir():
        np.save(path, np.load(path) * np.uint8(255))
    assert (
        scanned(root, splits=HALVES, values={0: "background", 255: "cell"}).samples["train"].item_counts.sum()
        == 2 * 480
    )
    for path in (root / "masks").iterdir():
        np.save(path, np.where(np.load(path)[..., None] > 0, np.uint8([128, 0, 64]), np.uint8([0, 0, 0])))
    data = scanned(root, splits=HALVES, values={"0 0 0": "background", "128 0 64": "cell"})
    assert data.source.spatial_dims == 3 and data.source.colors[1] == (128, 0, 64)


def test_numbers_of_other_types_become_float32(tmp_path):
    for dtype in ("int64", ">f8", "float16"):
        np.save(tmp_path / "a.npy", noise(5, 6, below=2).astype(dtype))
        image = open_image(tmp_path / "a.npy", 2).pixels()
        assert image.shape == (5, 6, 1) and image.dtype == np.float32 and set(np.unique(image)) == {0, 1}


@needs_volumes
def test_a_truncated_nifti_is_an_error(tmp_path):
    path = tmp_path / "a.nii.gz"
    write(path, noise(6, 8, 10))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"a\.nii\.gz: cannot be read as NIfTI"):
        open_image(path, 3).pixels()


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    monkeypatch.setattr("pickle.load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(UserError, match=r"a\.npy"):
        open_image(tmp_path / "a.npy", 1)


def test_missing_nibabel_is_an_error_with_the_command_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").touch()
    real = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name == "nibabel":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        UserError, match=r"a\.nii\.gz: reading NIfTI needs nibabel; run: pip install -e '\.\[volumes\]'"
    ):
        open_image(tmp_path / "a.nii.gz", 3)


def test_a_mode_converts_arrays_of_8_bits_only(tmp_path):
    np.save(tmp_path / "a.npy", noise(5, 6, 3))
    grey = open_image(tmp_path / "a.npy", 2, ReadOptions(mode="L")).pixels()
    assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(noise(5, 6, 3)).convert("L")))
    np.save(tmp_path / "b.npy", noise(5, 6, 3, dtype="float32"))
    with pytest.raises(UserError, match=r"b\.npy: 3 channels of float32, which data\.source\.mode=L does not convert"):
        open_image(tmp_path / "b.npy", 2, ReadOptions(mode="L")).pixels()
