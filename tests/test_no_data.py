"""Pixels without data: read as NaN, no part of the statistics, no label, 255 in a prediction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import config
from folders import CLASSES, folder_of, noise, scanned, sentence
from networks import network
from PIL import Image
from written import H, W, check

from unet.data.folder import Folder
from unet.data.image_range import image_range
from unet.data_check.findings import collect_findings
from unet.data_check.survey import survey_data
from unet.errors import UserError
from unet.inference.options import PredictOptions
from unet.io.image_reader import open_image
from unet.io.tiff import parse_nodata
from unet.network.normalization import Normalize
from unet.prediction.predict_file import predict_file
from unet.training.build import build_data, checkpoint_metadata
from unet.training.data_warnings import data_warnings
from unet.training.file_headers import declared_nodata


def test_pixels_outside_of_the_mask_of_a_geotiff_have_no_data(tmp_path: Path):
    pixels, valid = noise(64, 48, 3), noise(64, 48, below=2).astype(bool)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", tile=(32, 32), metadata=None)
        tiff.write(valid, photometric="mask", subfiletype=4, compression="zlib", rowsperstrip=10, metadata=None)
        tiff.write(pixels[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(valid[::2, ::2], photometric="mask", subfiletype=5, metadata=None)
    check(tmp_path / "a.tif", np.where(valid[..., None], pixels.astype(np.float32), np.nan))
    check(tmp_path / "a.tif", pixels, declared_nodata=False)


def test_no_data_is_nan(tmp_path: Path):
    pixels = noise(9, 8, 3, below=200, dtype="uint8") + np.uint8(1)
    pixels[0], pixels[1, :, 0] = 0, 0
    expected = pixels.astype(np.float32)
    expected[0] = np.nan  # 0 in one channel alone is a colour
    np.save(tmp_path / "a.npy", pixels)
    check(tmp_path / "a.npy", expected, nodata=0.0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(42113, 2, 0, "0", True)])
    check(tmp_path / "a.tif", expected)
    assert open_image(tmp_path / "a.tif", 2).rows(2, 5).dtype == np.uint8


NODATA = {
    "float32": "-3.4028234663852886e+38",
    "float64": "-1.7976931348623157e+308",
    "int16": "-9999",
    "int32": "-2147483648",
    "uint16": "65535",
    "float16": "nan",
}


@pytest.mark.parametrize(("dtype", "number"), NODATA.items())
def test_the_value_that_a_geotiff_declares_is_nan(tmp_path: Path, dtype: str, number: str):
    pixels = noise(9, 8, below=200).astype(dtype)
    expected = pixels.astype(np.float32)[..., None]
    pixels[:2] = float(number) if dtype.startswith("float") else int(number)
    expected[:2] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, number, True)])
    check(tmp_path / "a.tif", expected)


def test_a_value_that_the_type_cannot_hold_is_nowhere(tmp_path: Path):
    pixels = noise(9, 8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, "-9999", True)])
    check(tmp_path / "a.tif", pixels[..., None])


def test_pixels_without_data_are_no_part_of_the_statistics_and_have_no_label(tmp_path: Path):
    folder_of(tmp_path, list("abcd"), size=(8, 8))
    values = np.linspace(1, 5, 64, dtype=np.float32).reshape(8, 8)
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = values.copy()
        pixels[:2] = np.nan if number % 2 else -9999
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack")
    data = scanned(tmp_path, nodata=-9999, splits={"train": 2, "val": 2})
    samples = data.samples["train"]
    mean, std = samples.statistics()
    assert mean == [pytest.approx(values[2:].mean())] and std == [pytest.approx(values[2:].std())]
    assert samples.range == (values[2, 0], 5)
    for image, target in map(samples.__getitem__, range(len(samples))):
        assert np.isnan(image[:2]).all() and (target[:2] == 255).all() and (target[2:] < 2).all()
    assert samples.item_counts.sum() == 2 * 6 * 8
    normalized = Normalize(mean, std, 2)(torch.tensor(image).movedim(-1, 0)[None])
    assert (normalized[:, :, :2] == 0).all() and normalized[:, :, 2:].mean().abs() < 1e-5


@pytest.mark.parametrize(
    "options", [{}, {"tile": [32, 32]}, {"tta": True}, {"tile": [32, 32], "tta": True, "batch": 3}]
)
def test_the_label_of_a_pixel_without_data_is_255(tmp_path: Path, options: dict[str, Any]):
    model = network(tmp_path)
    pixels = noise(70, 50, 3, dtype="float32")
    whole = model.predict(pixels, **options)
    pixels[10:30, 5:20] = np.nan
    pixels[0, 0, 0] = np.nan  # one channel is not the whole pixel
    labels, scores = model.predict(pixels, True, **options)
    missing = np.isnan(pixels).all(-1)
    assert (labels[missing] == 255).all() and np.isnan(scores[missing]).all()
    assert (labels[~missing] < 3).all() and not np.isnan(scores[~missing]).any()
    assert (labels == whole)[~missing].mean() > 0.8
    model.description["reading"] = {"nodata": -9999.0}
    filled = np.where(np.isnan(pixels), np.float32(-9999), pixels)
    assert np.array_equal(model.predict(filled, **options), labels)
    tifffile.imwrite(tmp_path / "a.tif", filled, photometric="rgb")
    predict_file(model, tmp_path / "a.tif", tmp_path / "a.png", PredictOptions(**options))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)


def test_a_value_far_from_all_others_has_to_be_declared(tmp_path: Path):
    folder_of(tmp_path, list("abcd"), size=(8, 8))
    for seed, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = noise(8, 8, below=1000, seed=seed).astype(np.float32) / 1000
        pixels[0, :2] = -9999
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack")
    options = {"splits": {"train": 2, "val": 2}}
    with pytest.raises(UserError) as error:
        scanned(tmp_path, **options)
    sentence(error, "3 more images", "the value -9999 is far", "data.source.nodata=-9999", "data.source.nodata=none")
    assert scanned(tmp_path, nodata=-9999, **options).samples["train"].range[0] >= 0
    assert scanned(tmp_path, nodata="none", **options).samples["train"].range[0] == -9999
    (finding,) = [
        one for one in collect_findings(survey_data(Folder(str(tmp_path), CLASSES, **options))) if "far" in one.text
    ]
    assert finding.kind == "error" and len(finding.files) == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-9999] + [0.1, 0.5, 0.9] * 20, -9999),
        ([65535] * 9 + [100, 900, 3000] * 20, 65535),
        ([-3.4e38] * 9 + [-5.0, 3.0, 8.0] * 20, -3.4e38),
        ([0.0] * 30 + [1000.0, 1005.0, 1010.0] * 20, None),  # outside of an object
        ([0.0, 1.0] * 20, None),
        ([-1024.0] * 20 + [0.0, 500.0, 3000.0] * 20, None),  # CT
        ([65535] + [100, 900, 3000] * 60, None),  # a hot pixel
        (list(range(-50, 50)), None),
    ],
)
def test_values_that_probably_mean_no_data(values: list[float], expected: float | None):
    dtype = np.float32 if any(isinstance(value, float) for value in values) or min(values) < 0 else np.uint16
    image = np.array(values, dtype)[:, None]
    found = image_range(image)
    assert (found.isolated if found.is_far else None) == (None if expected is None else np.float32(expected))


@pytest.mark.parametrize("factor", [1, 257])
def test_a_colour_map_of_8_or_16_bits_and_its_index_without_data(tmp_path: Path, factor: int):
    indices, colors = noise(H, W), noise(3, 256, dtype="uint16")
    options = {"photometric": "palette", "colormap": colors * np.uint16(factor), "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", indices, **options)
    check(tmp_path / "a.tif", colors.T[indices].astype(np.uint8))
    tifffile.imwrite(tmp_path / "b.tif", indices, **options, extratags=[(42113, 2, 0, "7", True)])
    check(tmp_path / "b.tif", np.where((indices == 7)[..., None], np.nan, colors.T[indices].astype(np.float32)))


@pytest.mark.parametrize("text", ["-3.40282e+38", "-3.4e+38", "-3.40282346638529e+38"])
def test_a_rounded_declaration_of_no_data(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture):
    pixels = noise(9, 8).astype(np.float32)
    expected = pixels[..., None].copy()
    pixels[:2], expected[:2] = np.finfo(np.float32).min, np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, text, True)])
    caplog.clear()
    check(tmp_path / "a.tif", expected)
    assert caplog.text == ""


@pytest.mark.parametrize("text", ["7 7 7", "7,0", " 7 \0"])
def test_a_declaration_of_no_data_is_the_number_that_it_begins_with(text: str):
    assert parse_nodata(text) == 7


def test_a_value_that_the_training_images_declare_is_no_data_in_images_that_do_not(tmp_path: Path):
    folder_of(tmp_path, list("abcdef"), size=(16, 16))
    tag = [(42113, 2, 0, "0", True)]
    for seed, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = noise(16, 16, 3, below=900, dtype="uint16", seed=seed) + np.uint16(100)
        pixels[:4] = 0
        tifffile.imwrite(
            path.with_suffix(".tif"), pixels, photometric="rgb", extratags=tag if path.stem != "f" else None
        )
    source = Folder(str(tmp_path), CLASSES, splits={"train": 5, "val": 1})
    (text,) = data_warnings(scanned(tmp_path, splits={"train": 5, "val": 1}))
    assert "declare that 0 is no data, the others do not" in text and "data.source.nodata=0" in text
    data = scanned(tmp_path, splits={"train": 5, "val": 1})
    assert declared_nodata(data.samples["train"])[0] == 0 and str(data.samples["train"].dtype) == "uint16"
    facts = [image.dtype for _, image in survey_data(source).images]
    assert facts == ["uint16"] * 6, "no data makes no file a float"
    run = config(
        "data=folder", f"data.root={tmp_path}", "data.source.classes=[background,cell]", "data.crop.picture=16",
        "data.batch_size=2", "model.depth=1", "model.width=4",
    )  # fmt: skip
    module = build_data(run)
    module.scan()
    assert checkpoint_metadata(run, module)["reading"]["nodata"] == 0
