"""Images and masks on disk: what they may hold, and what is said of those that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import config
from folders import CLASSES, LISTS, folder_of, noise, save, scanned, sentence, swap
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from unet.data import SegmentationData
from unet.data.files import LabelMap, read_image
from unet.data.folder import Folder
from unet.errors import UserError
from unet.training.build import build_data

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
