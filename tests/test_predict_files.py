"""Files predicted: read and written in bands, resumable, whole or absent, one bad file among good ones."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import processes
import pytest
import tifffile
import torch
from conftest import ROOT, needs_volumes
from folders import noise, save, sentence
from networks import checkpoint, network
from PIL import Image

from unet.errors import UserError
from unet.inference.options import PredictOptions
from unet.io.atomic import atomic_write
from unet.prediction.predict_file import predict_file
from unet.prediction.predict_folder import (
    DONE,
    FAILED,
    SKIPPED,
    BatchOptions,
    error_message,
    list_images,
    predict_files,
    write_contact_sheet,
)
from unet.prediction.reading import open_image
from unet.prediction.writing import PngStreamWriter

EXACT = PredictOptions(tile=[32, 48], overlap=0.25, precision="32-true")


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as found:
        return np.asarray(found)


def written(folder: Path, image: np.ndarray) -> dict[str, Path]:
    """One picture in every way it is read in parts, and as PNG, which is not."""
    files = {
        name: folder / name for name in ("raw.tif", "tiles.tif", "strips.tiff", "big_endian.tif", "a.npy", "a.png")
    }
    kind = {"photometric": "rgb"}
    tifffile.imwrite(files["raw.tif"], image, **kind)
    tifffile.imwrite(
        files["tiles.tif"], image, tile=(16, 32), compression="zlib", predictor=image.dtype != np.float32, **kind
    )
    tifffile.imwrite(files["strips.tiff"], image, rowsperstrip=7, compression="zlib", **kind)
    tifffile.imwrite(files["big_endian.tif"], image, byteorder=">", **kind)
    np.save(files["a.npy"], image)
    if image.dtype == np.uint8:
        Image.fromarray(image).save(files["a.png"])
    else:
        del files["a.png"]
    return files


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_format_gives_the_rows_it_holds_and_the_labels_of_the_array(tmp_path: Path, dtype: str):
    image = noise(75, 101, 3, dtype=dtype)
    model = network(tmp_path)
    expected = model.predict(image, tile=EXACT.tile, overlap=EXACT.overlap, precision=EXACT.precision)
    for name, path in written(tmp_path, image).items():
        found = open_image(path, 2)
        assert found.size == (75, 101) and found.channels == 3
        for begin, end in ((0, 20), (10, 31), (31, 40), (5, 75), (74, 75)):
            assert np.array_equal(found.rows(begin, end), image[begin:end]), name
        predict_file(model, path, tmp_path / f"{name}.labels.png", EXACT)
        with Image.open(tmp_path / f"{name}.labels.png") as labels:
            assert labels.mode == "P" and labels.getpalette()[:9] == [9, 8, 7, 0, 0, 255, 0, 255, 0]
            assert np.array_equal(np.asarray(labels), expected), name


def test_no_more_rows_are_read_at_once_than_a_tile_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from unet.prediction import predict_file as one

    np.save(tmp_path / "long.npy", noise(400, 60, 3))
    stored = open_image(tmp_path / "long.npy", 2)
    asked = []
    read = stored.read

    def counting(begin: int, end: int) -> np.ndarray:
        asked.append((begin, end))
        return read(begin, end)

    stored.read = counting
    monkeypatch.setattr(one, "open_image", lambda path, spatial_dims: stored)
    predict_file(network(tmp_path), tmp_path / "long.npy", tmp_path / "long.png", EXACT)
    assert max(end - begin for begin, end in asked) == 32
    assert [begin for begin, _ in asked[1:]] == [end for _, end in asked[:-1]], "every row is read once"
    assert stored.cache is not None and len(stored.cache[1]) == 32


@pytest.mark.parametrize("size", [(1, 1), (3, 260), (50, 7)])
def test_a_picture_written_in_bands_is_the_picture(tmp_path: Path, size: tuple[int, int]):
    labels, colors = noise(*size, below=5), noise(5, 3).tolist()
    with atomic_write(tmp_path / "a.png") as file:
        png = PngStreamWriter(file, size, colors)
        for begin in range(0, size[0], 4):
            png.write(labels[begin : begin + 4])
        png.close()
    with Image.open(tmp_path / "a.png") as found:
        assert np.array_equal(np.asarray(found), labels)
        assert np.array_equal(np.asarray(found.convert("RGB")), np.array(colors, np.uint8)[labels])


def test_probabilities_and_overlay_stand_beside_the_labels(tmp_path: Path):
    model, image = network(tmp_path), noise(60, 50, 3)
    save(tmp_path / "in" / "a.png", image)
    order = BatchOptions(tmp_path / "out", "x", PredictOptions(precision="32-true"), probabilities=True, overlays=True)
    rows = predict_files(model, list_images(str(tmp_path / "in")), order)
    labels, shares = model.predict(image, probabilities=True, precision="32-true")
    found = np.load(tmp_path / "out" / "probabilities" / "a.npy")
    assert found.dtype == np.float16 and np.array_equal(found, shares)
    overlay = picture(tmp_path / "out" / "overlays" / "a.png")
    mixed = 0.55 * image[3, 4] + 0.45 * np.array(model.colors[labels[3, 4]])
    assert np.abs(overlay[3, 4] - mixed).max() <= 0.5
    sheet = write_contact_sheet(rows, order, model)
    assert sheet is not None and picture(sheet).shape[1] > 200


def test_a_file_in_other_units_than_the_training_s_is_predicted_with_a_warning(tmp_path: Path):
    model = network(tmp_path, dtype="uint8", range=[0.0, 255.0])
    save(tmp_path / "in" / "a.png", noise(60, 50, 3))
    np.save(tmp_path / "in" / "b.npy", noise(60, 50, 3) / np.float32(255))
    good, scaled = predict_files(model, list_images(str(tmp_path / "in")), BatchOptions(tmp_path / "out", "x"))
    assert (good.state, good.message) == (DONE, "60 x 50")
    assert scaled.state == DONE and scaled.message.startswith(
        "60 x 50; warning: the image holds float32 values from 0 to 1"
    )


@pytest.mark.parametrize("tile", [(32, 48), (512, 512)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_array_and_its_file_get_the_same_labels_and_probabilities_with_evaluation_transforms(
    tmp_path: Path, dtype: str, tile: tuple[int, int]
):
    model = network(tmp_path, eval_transforms=[{"_target_": "albumentations.Resize", "height": 70, "width": 90}])
    image = noise(60, 50, 3, dtype=dtype)
    np.save(tmp_path / "a.npy", image)
    predict_file(model, tmp_path / "a.npy", tmp_path / "a.png", PredictOptions(tile), tmp_path / "p.npy")
    labels, probabilities = model.predict(image, probabilities=True, tile=tile)
    assert np.array_equal(picture(tmp_path / "a.png"), labels)
    assert np.array_equal(np.load(tmp_path / "p.npy"), probabilities)


@needs_volumes
def test_a_volume_s_labels_lie_where_the_volume_does(tmp_path: Path):
    model, voxels = network(tmp_path, 3, channels=1), noise(18, 20, 25)
    affine = np.array([[0, 2, 0, 5], [1, 0, 0, 6], [0, 0, -3, 7], [0, 0, 0, 1]], float)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    tifffile.imwrite(tmp_path / "b.tif", voxels, photometric="minisblack")
    np.save(tmp_path / "c.npy", voxels)
    order = BatchOptions(tmp_path / "out", "x", PredictOptions(precision="32-true"), overlays=True)
    rows = predict_files(model, [tmp_path / name for name in ("a.nii.gz", "b.tif", "c.npy")], order)
    assert [row.state for row in rows] == [DONE] * 3, rows
    expected = model.predict(voxels, precision="32-true")
    nifti = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert np.array_equal(np.asanyarray(nifti.dataobj), expected) and np.array_equal(nifti.affine, affine)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "b.tif"), expected)
    assert np.array_equal(np.load(tmp_path / "out" / "c.npy"), expected)


def test_a_sequence_gets_a_sequence_of_labels(tmp_path: Path):
    model, line = network(tmp_path, 1, channels=1), noise(500)
    np.save(tmp_path / "a.npy", line)
    order = BatchOptions(tmp_path / "out", "x", PredictOptions(precision="32-true", tile=[100]), overlays=True)
    assert predict_files(model, [tmp_path / "a.npy"], order)[0].state == DONE
    assert np.array_equal(np.load(tmp_path / "out" / "a.npy"), model.predict(line, precision="32-true", tile=[100]))


def test_what_is_done_is_not_done_again_unless_something_changed(tmp_path: Path):
    model = network(tmp_path)
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png", noise(40, 40, 3))
    files = list_images(str(tmp_path / "in"))

    def states(*, checkpoint: str = "x", **options) -> list[str]:
        return [row.state for row in predict_files(model, files, BatchOptions(tmp_path / "out", checkpoint, **options))]

    assert states() == [DONE, DONE]
    assert states() == [SKIPPED, SKIPPED]
    assert states(options=PredictOptions(batch=2)) == [SKIPPED, SKIPPED], "the batch changes nothing"
    save(tmp_path / "in" / "b.png", noise(41, 40, 3))
    assert states() == [SKIPPED, DONE]
    assert states(options=PredictOptions(tta=True)) == [DONE, DONE]
    assert states(options=PredictOptions(tta=True), checkpoint="y") == [DONE, DONE]
    (tmp_path / "out" / "a.png").unlink()
    assert states(options=PredictOptions(tta=True), checkpoint="y") == [DONE, SKIPPED]
    (tmp_path / "out" / "records" / "b.png.json").write_text("{")
    save(tmp_path / "out" / "a.png", noise(3, 3))
    (tmp_path / "out" / "records" / "a.png.json").unlink()
    rows = predict_files(model, files, BatchOptions(tmp_path / "out", "y", PredictOptions(tta=True)))
    assert [row.state for row in rows] == [FAILED, FAILED] and "overwrite=true" in rows[0].message
    assert picture(tmp_path / "out" / "a.png").shape == (3, 3)
    assert states(overwrite=True) == [DONE, DONE]
    assert states(options=PredictOptions(tile=(32, 48))) == [DONE, DONE]
    assert states(options=PredictOptions(tile=(32, 48))) == [SKIPPED, SKIPPED]


def test_labels_that_were_being_replaced_when_all_stopped_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from unet.prediction import predict_folder as folder

    model, order = network(tmp_path), BatchOptions(tmp_path / "out", "x")
    files = [save(tmp_path / "in" / "a.png", noise(40, 40, 3))]
    assert [row.state for row in predict_files(model, files, order)] == [DONE]
    before = picture(tmp_path / "out" / "a.png")

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder, "predict_file", stopped)
        predict_files(model, files, dataclasses.replace(order, options=EXACT))
    assert np.array_equal(picture(tmp_path / "out" / "a.png"), before)
    assert [row.state for row in predict_files(model, files, order)] == [DONE], "no longer known to be whole"


@needs_volumes
def test_files_whose_results_would_be_called_alike_are_refused(tmp_path: Path):
    """Of these the labels would not be, a.npy and a.nii, but the probabilities."""
    model = network(tmp_path, 3, channels=1)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", noise(16, 16, 16))
    nibabel.save(nibabel.Nifti1Image(noise(16, 16, 16), np.eye(4)), tmp_path / "in" / "a.nii")
    rows = predict_files(
        model, list_images(str(tmp_path / "in")), BatchOptions(tmp_path / "out", "x", probabilities=True)
    )
    assert sorted(row.state for row in rows) == [DONE, FAILED]
    assert "would be called as those of" in rows[1].message


def test_a_bad_file_is_named_and_stops_nothing(tmp_path: Path):
    model = network(tmp_path)
    good = save(tmp_path / "in" / "good.png", noise(40, 40, 3))
    bad = {
        "cut.png": (good.read_bytes()[:700], "cannot be read as an image"),
        "empty.jpg": (b"", "cannot be read as an image"),
        "text.tif": (b"no picture", "cannot be read as an image"),
        "good.jpg": (good.read_bytes(), "would be called as those of"),
        "cut.npy": (b"\x93NUMPY\x01\x00v\x00", "cannot be read as an array"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / "in" / name).write_bytes(content)
    np.save(tmp_path / "in" / "short.npy", noise(9, 9, 3))
    os.truncate(tmp_path / "in" / "short.npy", 200)
    np.save(tmp_path / "in" / "nan.npy", np.full((9, 9, 3), np.nan, np.float32))
    np.save(tmp_path / "in" / "five.npy", noise(9, 9, 5))
    np.save(tmp_path / "in" / "words.npy", np.array([["a"]]))
    tifffile.imwrite(tmp_path / "in" / "volume.tif", noise(4, 9, 9), photometric="minisblack")
    said = {name: words for name, (_, words) in bad.items()} | {
        "short.npy": "cannot be read as an array",
        "nan.npy": "NaN or infinite",
        "five.npy": "5 channels, but the network was trained on 3",
        "words.npy": "expected one of real numbers",
        "volume.tif": "an image of 4 x 9 x 9 with 1 channels; the network takes images of 2 axes",
    }
    said |= {"cut.npy": "would be called as those of"}
    files = sorted(list_images(str(tmp_path / "in")), key=lambda path: path.suffix != ".png")
    rows = {row.path.name: row for row in predict_files(model, files, BatchOptions(tmp_path / "out", "x"))}
    assert rows.pop("good.png").state == DONE and rows.keys() == said.keys()
    for name, row in rows.items():
        assert row.state == FAILED and said[name] in row.message and name in row.message and "\n" not in row.message, (
            row
        )
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_file()] == ["good.png"]


def test_a_file_too_large_to_read_at_once_is_told_what_to_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "a.png", noise(40, 40, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(UserError) as error:
        open_image(tmp_path / "a.png", 2)
    sentence(error, "a.png: too large to be read at once; save it as TIFF")
    tifffile.imwrite(tmp_path / "b.tif", noise(40, 40, 3), photometric="rgb", compression="zlib", tile=(16, 16))
    assert open_image(tmp_path / "b.tif", 2).size == (40, 40)


def test_nothing_is_left_of_a_prediction_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = network(tmp_path)
    save(tmp_path / "in" / "a.png", noise(200, 60, 3))
    calls = []

    def stopping(image: torch.Tensor) -> torch.Tensor:
        calls.append(image)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return image

    model.normalize.register_forward_hook(lambda module, inputs, output: stopping(output))
    order = BatchOptions(tmp_path / "out", "x", EXACT, probabilities=True)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, list_images(str(tmp_path / "in")), order)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_inputs_and_outputs_that_cannot_be_are_refused_before_anything_is_done(tmp_path: Path):
    image = save(tmp_path / "in" / "a.png", noise(9, 9, 3))
    for chosen in (tmp_path / "gone", tmp_path / "in" / "*.tif", tmp_path):
        with pytest.raises(UserError, match="no images here"):
            list_images(str(chosen))
    assert list_images(str(tmp_path / "**" / "a.*")) == list_images(str(image)) == [image]
    with pytest.raises(UserError, match=r"holds a\.png, an input"):
        predict_files(network(tmp_path), [image], BatchOptions(tmp_path / "in", "x"))
    with pytest.raises(UserError, match="cannot be made"):
        predict_files(network(tmp_path), [image], BatchOptions(image / "out", "x"))
    assert "smaller tiles" in error_message(image, MemoryError())


@pytest.mark.slow
def test_the_command_ends_with_a_table_and_the_status_of_the_worst(tmp_path: Path):
    save(tmp_path / "my images" / "a, b.png", noise(40, 40, 3))
    (tmp_path / "my images" / "bad.png").write_bytes(b"")
    ckpt = checkpoint(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return processes.run([str(ROOT / "scripts" / "predict.py"), *arguments], tmp_path)

    chosen = [f"ckpt={ckpt}", "input=my images", "output=my labels", "sheet=true"]
    first = run(*chosen)
    assert first.returncode == 1 and "Traceback" not in first.stderr
    (line,) = first.stderr.splitlines()
    assert line.startswith("error: my images/bad.png: cannot be read as an image")
    assert picture(tmp_path / "my labels" / "a, b.png").shape == (40, 40)
    record = json.loads((tmp_path / "my labels" / "records" / "a, b.png.json").read_text())
    assert record["image"]["name"] == "a, b.png" and record["options"]["tta"] is False
    assert "sheet.png" in first.stdout
    for arguments, words in (([*chosen, "tiel=[8,8]"], "did you mean tile"), (chosen[1:], "ckpt: is required")):
        found = run(*arguments)
        assert found.returncode == 1 and words in found.stderr and found.stderr.count("\n") == 1
