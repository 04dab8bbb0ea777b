"""The formats of the labels of 2-D images: what other libraries read from them, and where they lie on Earth."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from folders import noise, save
from networks import network
from PIL import Image

from unet.inference.options import PredictOptions
from unet.prediction.georeference import geo_tags, read_world_file
from unet.prediction.predict_folder import DONE, SKIPPED, BatchOptions, predict_files
from unet.prediction.writing import open_label_writer

COLORS = [[9, 8, 7], [0, 0, 255], [0, 255, 0]]
LABELS = noise(75, 40, below=3)
LABELS[0, :5] = 255
DOUBLE, SHORT, ASCII = 12, 3, 2
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
AT_A_POINT = [
    (33550, DOUBLE, 3, (0.5, 0.5, 0.0), True),
    (33922, DOUBLE, 6, (0, 0, 0, 500000.0, 5700000.0, 0), True),
    (34735, SHORT, 16, KEYS, True),
    (34736, DOUBLE, 1, 6378137.0, True),
    (34737, ASCII, 0, "WGS 84 / UTM zone 33N|", True),
]
TURNED = [
    (34264, DOUBLE, 16, (0.4, 0.3, 0, 5e5, 0.3, -0.4, 0, 57e5, 0, 0, 0, 0, 0, 0, 0, 1), True),
    (34735, SHORT, 16, KEYS, True),
]


def write(path: Path, name: str, source: Path = Path("a.png")) -> Path:
    with open_label_writer(path, source, LABELS.shape, COLORS, name) as write_band:
        for begin in range(0, 75, 16):
            write_band(LABELS[begin : begin + 16])
    return path


def geo_metadata(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        return tiff.geotiff_metadata or {}


def test_every_library_reads_an_index_png_as_the_class_numbers(tmp_path: Path):
    path = write(tmp_path / "a.png", "index")
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), LABELS)
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), LABELS)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), LABELS) and np.array_equal(np.asarray(image.convert("L")), LABELS)


@pytest.mark.parametrize("name", ["color", "tiff"])
def test_labels_in_colour_have_the_class_numbers_as_indices(tmp_path: Path, name: str):
    path = write(tmp_path / f"a.{name[:3] if name == 'tiff' else 'png'}", name)
    with Image.open(path) as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), LABELS)
        colors = np.asarray(image.convert("RGB"))
    assert np.array_equal(colors[LABELS < 3], np.array(COLORS)[LABELS[LABELS < 3]])
    assert (colors[LABELS == 255] == 128).all()


@pytest.mark.parametrize("tags", [AT_A_POINT, TURNED], ids=["scale", "transformation"])
@pytest.mark.parametrize("strip_bytes", [1, 100, 2**18])
def test_a_label_tiff_has_the_georeference_of_its_image(
    tmp_path: Path, tags: list, strip_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("unet.prediction.writing.STRIP_BYTES", strip_bytes)
    image = tmp_path / "image.tif"
    resolution = {"resolution": (300, 150), "resolutionunit": 2}
    tifffile.imwrite(image, noise(75, 40, 3), photometric="rgb", metadata=None, extratags=tags, **resolution)
    labels = write(tmp_path / "labels.tif", "tiff", image)
    assert geo_metadata(labels) == geo_metadata(image) != {}
    assert np.array_equal(tifffile.imread(labels), LABELS)
    with tifffile.TiffFile(labels) as tiff:
        values = {tag.code: tag.value for tag in tiff.pages.first.tags}
    assert values[42113] == "255" and values[282] == (300, 1) and values[283] == (150, 1) and values[296] == 2
    if tags is AT_A_POINT:
        assert values[34736] == (6378137.0,) and values[34737] == "WGS 84 / UTM zone 33N|"


def test_a_world_file_becomes_the_georeference(tmp_path: Path):
    """Pixels of 0.5, the centre of the first at (500000.25, 5699999.75): its corner is at (500000, 5700000)."""
    image = save(tmp_path / "a.jpg", noise(75, 40, 3))
    assert geo_tags(image) == []
    (tmp_path / "a.jgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5699999.75\n")
    labels = write(tmp_path / "a.tif", "tiff", image)
    transformation = geo_metadata(labels)["ModelTransformation"]
    assert np.array_equal(transformation, [[0.5, 0, 0, 500000], [0, -0.5, 0, 5700000], [0, 0, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("image", "world"), [("a.JPG", "a.jgw"), ("a.jpg", "a.JGW"), ("a.tif", "a.TFW"), ("a.png", "a.wld")]
)
def test_world_files_are_found_in_either_case_and_may_have_decimal_commas(tmp_path: Path, image: str, world: str):
    (tmp_path / world).write_text("0,5\n0\n0\n-0,5\n10,25\n19,75\n")
    assert read_world_file(save(tmp_path / image, noise(8, 8, 3))) == [0.5, 0, 0, -0.5, 10.25, 19.75]


def test_the_format_is_part_of_the_options_and_a_png_of_a_geotiff_says_what_it_lacks(tmp_path: Path):
    model, image = network(tmp_path), tmp_path / "in" / "a.tiff"
    image.parent.mkdir()
    tifffile.imwrite(image, noise(30, 40, 3), photometric="rgb", metadata=None, extratags=AT_A_POINT)
    results = {}
    for name in ("index", "color", "color", "tiff"):
        options = BatchOptions(tmp_path / "out", "x", PredictOptions(tile=[16, 16]), labels=name)
        (result,) = predict_files(model, [image], options)
        results.setdefault(name, []).append(result.state)
        assert ("labels=tiff keeps that of the image" in result.message) == (name != "tiff")
    assert results == {"index": [DONE], "color": [DONE, SKIPPED], "tiff": [DONE]}
    with Image.open(tmp_path / "out" / "a.png") as file:
        assert np.array_equal(np.asarray(file), tifffile.imread(tmp_path / "out" / "a.tif"))
