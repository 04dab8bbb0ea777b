"""Tests of image and mask files; bad_inputs.py has the invalid ones."""

from pathlib import Path

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
from unet.data.folder import Folder
from unet.data.label_map import LabelMap
from unet.data.mask_file import MaskFile
from unet.errors import UserError
from unet.io.image_reader import open_image
from unet.training.build import build_data


def test_values_are_mapped_to_labels():
    mask = MaskFile(np.array([[0, 255], [7, 0]], np.uint8), 2)
    labels = LabelMap({0: "background", 255: "cell", 7: "ignore"}, CLASSES)(mask, Path())
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1], [255, 0]]


def test_colours_are_mapped_to_labels():
    pixels = np.array([[[0, 0, 0], [128, 0, 64]], [[128, 0, 64], [1, 2, 3]]], np.uint8)
    labels = LabelMap({"0 0 0": "background", "128,0,64": "cell", "1 2 3": "ignore"}, CLASSES)
    assert labels(MaskFile(pixels, 2), Path()).tolist() == [[0, 1], [1, 255]]
    opaque = np.concatenate([pixels, np.full((2, 2, 1), 255, np.uint8)], axis=-1)
    assert labels(MaskFile(opaque, 2), Path()).tolist() == [[0, 1], [1, 255]]


@settings(max_examples=25)
@given(arrays(np.uint8, (5, 4)), st.permutations(range(256)), st.sampled_from(["uint8", "uint16", "int32", "float32"]))
def test_any_mapping_of_values_of_any_type(pixels, order, dtype):
    classes = [f"class {label}" for label in range(255)]
    values = {value: [*classes, "ignore"][index] for index, value in enumerate(order)}
    labels = LabelMap(values, classes)(MaskFile(pixels.astype(dtype), 2), Path())
    assert (labels == np.argsort(order)[pixels]).all()


def test_a_palette_mask_gives_its_indices_unless_colours_are_mapped(tmp_path):
    path = tmp_path / "m.png"
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1, 1, 0])
    image.save(path)
    assert LabelMap(None, CLASSES).read(path).tolist() == [[0, 1], [1, 0]]
    by_color = LabelMap({"10 20 30": "cell", "200 100 0": "background"}, CLASSES)
    assert by_color.read(path).tolist() == [[1, 0], [0, 1]]


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
        assert str(open_image(path.with_suffix(f".{suffix}"), 2).pixels().dtype) == dtype
    data = build_data(config("data=folder", f"data.root={tmp_path}", "data.source.classes=[a,b]", "data.batch_size=2"))
    data.scan()
    batch = next(iter(data.train_dataloader()))
    assert data.channels == channels
    assert batch["image"].shape == (2, channels, 256, 256)
    assert batch["image"].dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert set(batch["target"].unique().tolist()) <= {0, 1, 255}


def test_mode_converts_all_images(five):
    save(five / "images" / "2.png", noise(12, 10))
    assert scanned(five, mode="RGB").channels == 3
    assert scanned(five, mode="L").channels == 1


def test_a_missing_listed_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        open_image(tmp_path / "gone.png", 2).pixels()


def test_images_of_different_sizes_need_a_batch_of_one(five):
    swap(five / "images/3.png", noise(14, 10, 3))
    swap(five / "masks/3.png", noise(14, 10, below=2))
    assert scanned(five).samples["val"].sizes.keys() == {(14, 10), (12, 10)}
    source = Folder(str(five), classes=CLASSES, splits=LISTS)
    with pytest.raises(UserError) as error:
        SegmentationData(source, seed=0, batch_size=2, eval_batch_size=2).scan()
    sentence(error, "12 x 10 and 14 x 10", "data.eval_batch_size=1")
