"""ICBM152, and a folder of sequences and volumes: what is read, and what is said of what cannot be."""

import builtins
import importlib.metadata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_volumes
from PIL import Image

from unet.data import SegmentationData
from unet.data.folder import Folder
from unet.data.icbm152 import SLABS, Icbm152, tissue_labels
from unet.errors import UserError
from unet.io.image_formats import name_parts, read_image

CLASSES = ["background", "cell"]


def noise(*shape: int, below: int = 256, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape).astype(dtype)


# ICBM152


def test_tissue_by_hand():
    image = np.array([[0, 90, 90, 90, 90]], np.uint8)
    grey = np.array([[0, 200, 20, 100, 100]], np.uint8)
    white = np.array([[0, 55, 230, 55, 90]], np.uint8)
    # outside; grey; white; 100 of both grey and the rest; 100 grey
    assert tissue_labels(image, grey, white).tolist() == [[255, 1, 2, 0, 1]]


@needs_volumes
def test_the_template_is_divided_into_slabs_that_keep_their_distance():
    items = Icbm152().items
    assert {split: len(found) for split, found in items.items()} == {"train": 3, "val": 1, "test": 1}
    slabs = sorted((slab.start, slab.stop) for found in SLABS.values() for slab in found)
    assert [after[0] - before[1] for before, after in pairwise(slabs)] == [12, 12, 12, 12]
    for split, found in items.items():
        for item in found:
            image, target = item.read()
            assert image.shape == (*target.shape, 1) and image.dtype == np.uint8
            assert len(image) == (32 if split == "train" else 16)
            for axis in range(3):
                rims = np.moveaxis(image, axis, 0)[[0, -1]]
                assert rims.any((1, 2, 3)).all(), "no larger than the brain"
            assert (image[..., ::-1, :] == image).all() and (target[..., ::-1] == target).all(), "its own mirror image"
            assert ((target == 255) == (image[..., 0] == 0)).all()
            assert (np.bincount(target.ravel(), minlength=256)[:3] > 10_000).all()
            means = [image[..., 0][target == label].mean() for label in range(3)]
            assert means[0] < 120 < means[1] < 180 < means[2], "fluid is dark, white matter bright"
    test = items["test"][0].read()[1]
    top = test.shape[1] // 2
    assert (test[:, :top] < 255).sum() > (test[:, top:] < 255).sum(), "the crown is at the top"


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def absent(package: str):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(UserError, match=r"t1.* of nilearn is not installed; run: pip install -e '\.\[volumes\]'"):
        Icbm152().load_splits()
    monkeypatch.setattr(importlib.metadata, "files", lambda package: [])
    with pytest.raises(UserError, match="not installed"):
        Icbm152().load_splits()


# Names


@pytest.mark.parametrize(
    "name, stem, suffix",
    [("a.nii.gz", "a", ".nii.gz"), ("a.b.NII.GZ", "a.b", ".nii.gz"), ("a.gz", "a", ".gz"), ("a.1.npy", "a.1", ".npy")],
)
def test_stem_and_suffix(name, stem, suffix):
    assert name_parts(Path("x") / name) == (stem, suffix)


# A folder of arrays


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


def folder_of(root: Path, size: tuple[int, ...], images: str, masks: str, channels: tuple[int, ...] = ()) -> Path:
    for seed in range(4):
        write(root / "images" / f"v{seed}{images}", noise(*size, *channels, seed=seed))
        write(root / "masks" / f"v{seed}{masks}", noise(*size, below=2, seed=seed))
    return root


def scanned(root: Path, **options) -> SegmentationData:
    source = Folder(str(root), **{"classes": CLASSES, "splits": {"train": 0.5, "val": 0.5}, **options})
    data = SegmentationData(source, seed=0, batch_size=2, eval_batch_size=1)
    data.scan()
    return data


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
def test_arrays_and_volumes_are_read_and_say_how_many_axes_they_have(tmp_path, size, images, masks, channels):
    data = scanned(folder_of(tmp_path, size, images, masks, channels))
    assert data.source.spatial_dims == len(size)
    assert data.channels == (channels or (1,))[0]
    sample = data.dataset("train")[0, 0, 0]
    assert sample["image"].shape == (*size, data.channels) and sample["target"].shape == size
    by_stem = {name_parts(Path(item.name))[0]: item for found in data.source.items.values() for item in found}
    image, target = by_stem["v2"].read()
    assert (image.reshape(*size, *channels) == noise(*size, *channels, seed=2)).all()
    assert (target == noise(*size, below=2, seed=2)).all()


def test_values_and_colours_are_mapped_in_arrays_too(tmp_path):
    root = folder_of(tmp_path, (6, 8, 10), ".npy", ".npy")
    for path in (root / "masks").iterdir():
        np.save(path, np.load(path) * np.uint8(255))
    assert scanned(root, values={0: "background", 255: "cell"}).samples["train"].item_counts.sum() == 2 * 480
    for path in (root / "masks").iterdir():
        np.save(path, np.where(np.load(path)[..., None] > 0, np.uint8([128, 0, 64]), np.uint8([0, 0, 0])))
    data = scanned(root, values={"0 0 0": "background", "128 0 64": "cell"})
    assert data.source.spatial_dims == 3 and data.source.colors[1] == (128, 0, 64)


def test_numbers_of_other_types_become_float32(tmp_path):
    for dtype in ("int64", ">f8", "bool", "float16"):
        np.save(tmp_path / "a.npy", noise(5, 6, below=2).astype(dtype))
        image = read_image(tmp_path / "a.npy", spatial_dims=2)
        assert image.shape == (5, 6, 1) and image.dtype == np.float32 and set(np.unique(image)) == {0, 1}


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


FAULTS: dict[str, tuple[tuple[str, str], Callable[[Path], object], tuple[str, ...]]] = {
    "truncated array": ((".npy", ".npy"), lambda root: cut(root / "images/v1.npy"), ("v1.npy", "cannot be read")),
    "no array": ((".npy", ".npy"), lambda root: (root / "masks/v1.npy").write_text("hello"), ("v1.npy", "numpy.save")),
    "objects": ((".npy", ".npy"), lambda root: pickled(root / "images/v1.npy"), ("v1.npy", "cannot be read", "bject")),
    "complex": (
        (".npy", ".npy"),
        lambda root: np.save(root / "images/v1.npy", np.zeros((6, 8, 10), complex)),
        ("v1.npy", "complex128", "real numbers"),
    ),
    "3 axes and a mask of 2": (
        (".tif", ".npy"),
        lambda root: np.save(root / "masks/v1.npy", noise(8, 10, below=2)),
        ("v1.tif", "6 x 8 x 10", "its mask has 2 axes"),
    ),
    "mixed dimensions": (
        (".npy", ".npy"),
        lambda root: [np.save(root / part / "v1.npy", noise(8, 10, below=2)) for part in ("images", "masks")],
        ("v1.npy", "expected 3 spatial axes", "8 x 10"),
    ),
    "channels in a mask": (
        (".npy", ".npy"),
        lambda root: np.save(root / "masks/v1.npy", noise(6, 8, 10, 2, below=2)),
        ("masks/v1.npy", "6 x 8 x 10 x 2", "no channels"),
    ),
    "another size": (
        (".npy", ".npy"),
        lambda root: np.save(root / "masks/v1.npy", noise(6, 8, 11, below=2)),
        ("images/v1.npy", "6 x 8 x 11", "6 x 8 x 10"),
    ),
    "two of one stem": (
        (".npy", ".npy"),
        lambda root: (root / "images/v1.nii.gz").touch(),
        ("v1.nii.gz", "v1.npy", "one stem"),
    ),
    "pages of two sizes": (
        (".tif", ".npy"),
        lambda root: Image.fromarray(noise(8, 10)).save(
            root / "images/v1.tif", save_all=True, append_images=[Image.fromarray(noise(9, 10))]
        ),
        ("v1.tif", "2 pages"),
    ),
}
NIFTI_FAULTS = {
    "truncated NIfTI": ((".nii.gz", ".npy"), lambda root: cut(root / "images/v1.nii.gz"), ("v1.nii.gz", "NIfTI")),
    "no NIfTI": (
        (".nii.gz", ".npy"),
        lambda root: (root / "images/v1.nii.gz").write_text("hello"),
        ("v1.nii.gz", "NIfTI"),
    ),
}


@pytest.mark.parametrize("fault", [*FAULTS, *(pytest.param(name, marks=needs_volumes) for name in NIFTI_FAULTS)])
def test_a_fault_is_said_in_one_sentence_that_names_the_file(tmp_path, fault):
    (images, masks), spoil, parts = {**FAULTS, **NIFTI_FAULTS}[fault]
    root = folder_of(tmp_path, (6, 8, 10), images, masks)
    (root / "train.txt").write_text("v0\nv1\n")
    spoil(root)
    with pytest.raises(UserError) as error:
        scanned(root, splits={"train": "train.txt", "val": 1})
    message = str(error.value)
    assert "\n" not in message and [part for part in parts if part not in message] == [], message


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    import pickle

    pickled(tmp_path / "a.npy")
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(UserError, match=r"a\.npy"):
        read_image(tmp_path / "a.npy")


def test_without_nibabel_the_error_says_what_to_install(tmp_path, monkeypatch):
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
        read_image(tmp_path / "a.nii.gz")


def test_a_picture_mode_is_refused_for_arrays(tmp_path):
    with pytest.raises(UserError, match=r"\.npy: data\.source\.mode=RGB converts pictures"):
        scanned(folder_of(tmp_path, (12, 10), ".npy", ".npy"), mode="RGB", splits={"train": 1, "val": 1})
