"""Prediction of files and folders: reading and writing in bands, resuming, invalid files."""

import dataclasses
import json
import math
import os
from pathlib import Path

import nibabel
import numpy as np
import processes
import pytest
import scipy.stats
import tifffile
from conftest import ROOT, needs_volumes
from folders import noise, save, sentence
from networks import checkpoint, network
from PIL import ExifTags, Image

from unet.errors import UserError
from unet.inference.options import PredictOptions
from unet.io.atomic import atomic_write
from unet.io.image_reader import open_image, open_stored
from unet.network.geometry import Window
from unet.prediction.image_files import group_channels
from unet.prediction.predict_file import entropy_levels, predict_file
from unet.prediction.predict_folder import (
    DONE,
    DOUBTFUL,
    FAILED,
    SKIPPED,
    BatchOptions,
    error_message,
    input_root,
    list_images,
    predict_files,
    write_contact_sheet,
)
from unet.prediction.writing import PngStreamWriter

FLOAT32 = PredictOptions(precision="32-true")
CHANNELS = {"channel_names": ["T2", "T1"], "channel_file": "{id}_{channel}.*", "mean": [128.0] * 2, "std": [64.0] * 2}
TILED = PredictOptions(tile=[32, 48], overlap=0.25, precision="32-true")


def read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def write_formats(folder: Path, image: np.ndarray) -> list[Path]:
    """Write one image in every format that is read in bands, and as PNG, which is not."""
    folder.mkdir()
    compressed = {"photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(folder / "raw.tif", image, photometric="rgb")
    tifffile.imwrite(folder / "tiles.tif", image, tile=(16, 32), predictor=image.dtype != np.float32, **compressed)
    tifffile.imwrite(folder / "strips.tiff", image, rowsperstrip=7, **compressed)
    tifffile.imwrite(folder / "big_endian.tif", image, photometric="rgb", byteorder=">")
    np.save(folder / "a.npy", image)
    if image.dtype == np.uint8:
        Image.fromarray(image).save(folder / "a.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_format_returns_its_rows_and_the_labels_of_the_array(tmp_path: Path, dtype: str):
    image = noise(75, 101, 3, dtype=dtype)
    model = network(tmp_path)
    expected = model.predict(image, tile=TILED.tile, overlap=TILED.overlap, precision=TILED.precision)
    for path in write_formats(tmp_path / "in", image):
        reader = open_image(path, 2)
        assert reader.size == (75, 101) and reader.channels == 3
        for begin, end in ((0, 20), (10, 31), (31, 40), (5, 75), (74, 75)):
            assert np.array_equal(reader.rows(begin, end), image[begin:end]), path.name
        predict_file(model, path, tmp_path / "labels.png", TILED)
        with Image.open(tmp_path / "labels.png") as labels:
            assert labels.mode == "L"
            assert np.array_equal(np.asarray(labels), expected), path.name


def test_at_most_the_rows_of_one_tile_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.save(tmp_path / "long.npy", noise(400, 60, 3))
    reader = open_image(tmp_path / "long.npy", 2)
    calls = []
    read = reader.pixels

    def record_call(window: Window) -> np.ndarray:
        calls.append((window[0].start, window[0].stop))
        return read(window)

    monkeypatch.setattr(reader, "pixels", record_call)
    monkeypatch.setattr("unet.io.channel_files.open_image", lambda *args, **options: reader)
    predict_file(network(tmp_path), tmp_path / "long.npy", tmp_path / "long.png", TILED)
    assert max(end - begin for begin, end in calls) == 32
    assert [begin for begin, _ in calls[1:]] == [end for _, end in calls[:-1]], "every row is read once"
    assert reader.cache is not None and len(reader.cache[1]) == 32


@pytest.mark.parametrize("size", [(1, 1), (3, 260), (50, 7)])
def test_a_png_written_in_bands_has_the_labels_and_colours(tmp_path: Path, size: tuple[int, int]):
    labels, colors = noise(*size, below=5), noise(5, 3).tolist()
    for argument, mode, shown in ((colors, "P", np.array(colors, np.uint8)[labels]), (None, "L", labels)):
        with atomic_write(tmp_path / "a.png") as file:
            writer = PngStreamWriter(file, size, argument)
            for begin in range(0, size[0], 4):
                writer.write(labels[begin : begin + 4])
            writer.close()
        with Image.open(tmp_path / "a.png") as image:
            assert image.mode == mode and np.array_equal(np.asarray(image), labels)
            assert np.array_equal(np.asarray(image.convert("RGB" if mode == "P" else "L")), shown)


def test_probabilities_overlays_and_contact_sheet_are_written(tmp_path: Path):
    model, image = network(tmp_path), noise(60, 50, 3)
    save(tmp_path / "in" / "a.png", image)
    options = BatchOptions(tmp_path / "out", "x", FLOAT32, probabilities=True, overlays=True)
    results = predict_files(model, list_images(str(tmp_path / "in")), options)
    labels, expected = model.predict(image, probabilities=True, precision="32-true")
    probabilities = np.load(tmp_path / "out" / "probabilities" / "a.npy")
    assert probabilities.dtype == np.float16 and np.array_equal(probabilities, expected)
    overlay = read_image(tmp_path / "out" / "overlays" / "a.png")
    blended_pixel = 0.55 * image[3, 4] + 0.45 * np.array(model.colors[labels[3, 4]])
    assert np.abs(overlay[3, 4] - blended_pixel).max() <= 0.5
    contact_sheet = write_contact_sheet(results, options, model)
    assert contact_sheet is not None and read_image(contact_sheet).shape[1] > 200


def test_the_uncertainty_is_the_entropy_of_the_probabilities_in_the_format_of_the_labels(tmp_path: Path):
    model, image = network(tmp_path), noise(60, 50, 3)
    save(tmp_path / "in" / "a.png", image)
    files = list_images(str(tmp_path / "in"))
    _, probabilities = model.predict(image, probabilities=True, precision="32-true")
    expected = scipy.stats.entropy(probabilities.astype(np.float64), axis=-1) / np.log(len(model.classes)) * 254
    for name, suffix in (("index", ".png"), ("color", ".png"), ("tiff", ".tif")):
        options = BatchOptions(tmp_path / name, "x", FLOAT32, labels=name, uncertainty=True)
        assert [result.state for result in predict_files(model, files, options)] == [DONE]
        path = tmp_path / name / "uncertainty" / f"a{suffix}"
        with Image.open(path) as levels:
            assert np.abs(np.asarray(levels) - expected).max() < 1
            assert np.array_equal(np.asarray(levels), np.asarray(levels.convert("L"))), "shown in grey"
            assert levels.mode == "L" or levels.getpalette()[255 * 3 :] == [255, 0, 0], "no data in red"
        assert [result.state for result in predict_files(model, files, options)] == [SKIPPED]
        path.unlink()
        assert [result.state for result in predict_files(model, files, options)] == [DONE]


def test_levels_of_uncertainty():
    probabilities = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [np.nan] * 3], np.float16)
    assert entropy_levels(probabilities).tolist() == [0, 254, round(254 * np.log(2) / np.log(3)), 255]
    assert entropy_levels(np.ones((2, 1), np.float16)).tolist() == [0, 0], "a network of one class"


def test_a_temperature_divides_the_logits(tmp_path: Path):
    model, image = network(tmp_path), noise(30, 20, 3)
    labels, sharp = model.predict(image, probabilities=True, precision="32-true")
    softened, soft = model.predict(image, probabilities=True, precision="32-true", temperature=2)
    expected = np.sqrt(sharp.astype(np.float64))
    assert np.array_equal(labels, softened)
    assert np.allclose(soft, expected / expected.sum(-1, keepdims=True), atol=2e-3)
    for value in (0, -1, math.inf, True, "hot"):
        with pytest.raises(UserError, match="temperature: expected a number above 0, found"):
            model.predict(image, temperature=value)  # pyright: ignore[reportArgumentType]


def test_a_file_in_other_units_than_the_training_s_is_doubtful_also_when_it_is_skipped(tmp_path: Path):
    model = network(tmp_path, dtype="uint8", range=[0.0, 255.0])
    save(tmp_path / "in" / "a.png", noise(60, 50, 3))
    np.save(tmp_path / "in" / "b.npy", noise(60, 50, 3) / np.float32(255))
    files, output = list_images(str(tmp_path / "in")), tmp_path / "out"
    warning = "warning: float32 values from 0 to 1"
    good, scaled = predict_files(model, files, BatchOptions(output, "x"))
    assert (good.state, good.message) == (DONE, "60 x 50")
    assert scaled.state == DOUBTFUL and scaled.message.startswith(f"60 x 50; {warning}")
    good, scaled = predict_files(model, files, BatchOptions(output, "x"))
    assert (good.state, good.message) == (SKIPPED, "")
    assert scaled.state == DOUBTFUL and scaled.message.startswith(f"already done; {warning}")
    strict = BatchOptions(output, "x", PredictOptions(strict=True))
    assert [result.state for result in predict_files(model, files, strict)] == [SKIPPED, FAILED]


def test_with_strict_a_doubtful_file_is_refused_and_nothing_of_it_is_left(tmp_path: Path):
    model = network(tmp_path, dtype="uint8", range=[0.0, 255.0])
    image = noise(90, 50, 3, dtype="uint16")
    image[-1] = 60_000  # in the last band
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    prediction = PredictOptions(tile=[32, 32], strict=True)
    options = BatchOptions(tmp_path / "out", "x", prediction, labels="tiff", probabilities=True, overlays=True)
    (result,) = predict_files(model, [tmp_path / "a.tif"], options)
    assert result.state == FAILED and "values from 0 to 60000" in result.message and "strict=true" in result.message
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("tile", [(32, 48), (512, 512)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_array_and_its_file_have_the_same_labels_and_probabilities_with_evaluation_transforms(
    tmp_path: Path, dtype: str, tile: tuple[int, int]
):
    model = network(tmp_path, eval_transforms=[{"_target_": "albumentations.Resize", "height": 70, "width": 90}])
    image = noise(60, 50, 3, dtype=dtype)
    np.save(tmp_path / "a.npy", image)
    predict_file(model, tmp_path / "a.npy", tmp_path / "a.png", PredictOptions(tile), tmp_path / "p.npy")
    labels, probabilities = model.predict(image, probabilities=True, tile=tile)
    assert np.array_equal(read_image(tmp_path / "a.png"), labels)
    assert np.array_equal(np.load(tmp_path / "p.npy"), probabilities)


@needs_volumes
def test_labels_of_a_volume_have_its_format_and_affine(tmp_path: Path):
    model, voxels = network(tmp_path, 3, channels=1), noise(18, 20, 25)
    affine = np.array([[0, 2, 0, 5], [1, 0, 0, 6], [0, 0, -3, 7], [0, 0, 0, 1]], float)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    tifffile.imwrite(tmp_path / "b.tif", voxels, photometric="minisblack")
    np.save(tmp_path / "c.npy", voxels)
    options = BatchOptions(tmp_path / "out", "x", FLOAT32, overlays=True)
    results = predict_files(model, [tmp_path / name for name in ("a.nii.gz", "b.tif", "c.npy")], options)
    assert [result.state for result in results] == [DONE] * 3, results
    expected = model.predict(voxels, precision="32-true")
    nifti = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert np.array_equal(np.asanyarray(nifti.dataobj), expected) and np.array_equal(nifti.affine, affine)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "b.tif"), expected)
    assert np.array_equal(np.load(tmp_path / "out" / "c.npy"), expected)


def test_labels_of_a_sequence_are_a_sequence(tmp_path: Path):
    model, sequence = network(tmp_path, 1, channels=1), noise(500)
    np.save(tmp_path / "a.npy", sequence)
    options = BatchOptions(tmp_path / "out", "x", PredictOptions(precision="32-true", tile=[100]), overlays=True)
    assert predict_files(model, [tmp_path / "a.npy"], options)[0].state == DONE
    assert np.array_equal(np.load(tmp_path / "out" / "a.npy"), model.predict(sequence, precision="32-true", tile=[100]))


def test_completed_files_are_skipped_unless_something_changed(tmp_path: Path):
    model = network(tmp_path)
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png", noise(40, 40, 3))
    files, output = list_images(str(tmp_path / "in")), tmp_path / "out"

    def states(*, checkpoint: str = "x", overwrite: bool = False, **options) -> list[str]:
        batch_options = BatchOptions(output, checkpoint, PredictOptions(**options), overwrite=overwrite)
        return [result.state for result in predict_files(model, files, batch_options)]

    assert states() == [DONE, DONE]
    assert states() == [SKIPPED, SKIPPED]
    assert states(batch=2) == [SKIPPED, SKIPPED], "the batch size changes nothing"
    save(tmp_path / "in" / "b.png", noise(41, 40, 3))
    assert states() == [SKIPPED, DONE]
    assert states(tta=True) == [DONE, DONE]
    assert states(tta=True, checkpoint="y") == [DONE, DONE]
    (output / "a.png").unlink()
    assert states(tta=True, checkpoint="y") == [DONE, SKIPPED]
    (output / "records" / "b.png.json").write_text("{")
    save(output / "a.png", noise(3, 3))
    (output / "records" / "a.png.json").unlink()
    results = predict_files(model, files, BatchOptions(output, "y", PredictOptions(tta=True)))
    assert [result.state for result in results] == [FAILED, FAILED] and "overwrite=true" in results[0].message
    assert read_image(output / "a.png").shape == (3, 3)
    assert states(overwrite=True) == [DONE, DONE]
    assert states(tile=(32, 48)) == [DONE, DONE]
    assert states(tile=(32, 48)) == [SKIPPED, SKIPPED]


def test_labels_are_predicted_again_after_an_interrupted_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, options = network(tmp_path), BatchOptions(tmp_path / "out", "x")
    files = [save(tmp_path / "in" / "a.png", noise(40, 40, 3))]
    assert predict_files(model, files, options)[0].state == DONE
    labels = read_image(tmp_path / "out" / "a.png")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("unet.prediction.predict_folder.predict_file", interrupt)
        predict_files(model, files, dataclasses.replace(options, prediction=TILED))
    assert np.array_equal(read_image(tmp_path / "out" / "a.png"), labels)
    assert predict_files(model, files, options)[0].state == DONE


@needs_volumes
def test_files_whose_outputs_would_have_the_same_name_are_refused(tmp_path: Path):
    """The labels would be a.npy and a.nii, the probabilities of both a.npy."""
    model = network(tmp_path, 3, channels=1)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", noise(16, 16, 16))
    nibabel.save(nibabel.Nifti1Image(noise(16, 16, 16), np.eye(4)), tmp_path / "in" / "a.nii")
    options = BatchOptions(tmp_path / "out", "x", probabilities=True)
    results = predict_files(model, list_images(str(tmp_path / "in")), options)
    assert sorted(result.state for result in results) == [DONE, FAILED]
    assert "would have the same names as those of" in results[1].message


def test_an_invalid_file_is_named_and_does_not_stop_the_others(tmp_path: Path):
    model, folder = network(tmp_path), tmp_path / "in"
    good = save(folder / "good.png", noise(40, 40, 3))
    (folder / "cut.png").write_bytes(good.read_bytes()[:700])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.tif").write_bytes(b"no picture")
    (folder / "good.jpg").write_bytes(good.read_bytes())
    np.save(folder / "short.npy", noise(9, 9, 3))
    os.truncate(folder / "short.npy", 200)
    np.save(folder / "inf.npy", np.full((9, 9, 3), np.inf, np.float32))
    np.save(folder / "five.npy", noise(9, 9, 5))
    np.save(folder / "words.npy", np.array([["a"]]))
    tifffile.imwrite(folder / "volume.tif", noise(4, 9, 9), photometric="minisblack")
    messages = {
        "cut.png": "cannot be read as an image",
        "empty.jpg": "cannot be read as an image",
        "text.tif": "cannot be read as an image",
        "good.jpg": "would have the same names as those of",
        "short.npy": "cannot be read as an array",
        "inf.npy": "infinite",
        "five.npy": "5 channels, but the network was trained on 3",
        "words.npy": "expected one of real numbers",
        "volume.tif": "an image of 4 x 9 x 9, but the network takes images with 2 axes",
    }
    files = sorted(list_images(str(folder)), key=lambda path: path.suffix != ".png")
    results = {result.path.name: result for result in predict_files(model, files, BatchOptions(tmp_path / "out", "x"))}
    assert results.pop("good.png").state == DONE and results.keys() == messages.keys()
    for name, result in results.items():
        assert result.state == FAILED and messages[name] in result.message, result
        assert name in result.message and "\n" not in result.message
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_file()] == ["good.png"]


def test_the_error_for_a_file_too_large_to_read_at_once_names_other_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path / "a.png", noise(40, 40, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(UserError) as error:
        open_image(tmp_path / "a.png", 2)
    sentence(error, "a.png: more than 1,400 pixels", "save it as TIFF")
    tifffile.imwrite(tmp_path / "b.tif", noise(40, 40, 3), photometric="rgb", compression="zlib", tile=(16, 16))
    assert open_image(tmp_path / "b.tif", 2).size == (40, 40)


def test_an_interrupted_prediction_leaves_no_files(tmp_path: Path):
    model = network(tmp_path)
    save(tmp_path / "in" / "a.png", noise(200, 60, 3))
    calls = []

    def interrupt(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > 8:
            raise KeyboardInterrupt

    model.normalize.register_forward_hook(interrupt)
    options = BatchOptions(tmp_path / "out", "x", TILED, probabilities=True)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, list_images(str(tmp_path / "in")), options)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_invalid_inputs_and_outputs_are_refused(tmp_path: Path):
    image = save(tmp_path / "in" / "a.png", noise(9, 9, 3))
    for path in (tmp_path / "missing", tmp_path / "in" / "*.tif", tmp_path):
        with pytest.raises(UserError, match="no images found"):
            list_images(str(path))
    assert list_images(str(tmp_path / "**" / "a.*")) == list_images(str(image)) == [image]
    with pytest.raises(UserError, match=r"contains a\.png, an input"):
        predict_files(network(tmp_path), [image], BatchOptions(tmp_path / "in", "x"))
    with pytest.raises(UserError, match="cannot be made"):
        predict_files(network(tmp_path), [image], BatchOptions(image / "out", "x"))
    assert "smaller tiles" in error_message(image, MemoryError())


def test_sub_folders_are_kept_in_every_output(tmp_path: Path):
    model = network(tmp_path)
    for name in ("p1/a.png", "p2/a.png", "p2/deep/a.png", "top.png", "p1/a.jpg"):
        save(tmp_path / "my [images]" / name, noise(20, 20, 3))
    pattern = str(tmp_path / "my [images]" / "**" / "*")
    assert input_root(pattern) == input_root(str(tmp_path / "my [images]")) == tmp_path / "my [images]"
    options = BatchOptions(tmp_path / "out", "x", root=input_root(pattern), probabilities=True, overlays=True)
    results = predict_files(model, list_images(pattern), options)
    (refused,) = [result for result in results if result.state == FAILED]
    assert len(results) == 5 and "would have the same names as those of" in refused.message
    stems = ["p1/a", "p2/a", "p2/deep/a", "top"]
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {
        *(f"{stem}.png" for stem in stems),
        *(f"records/{stem}.png.json" for stem in stems),
        *(f"probabilities/{stem}.npy" for stem in stems),
        *(f"overlays/{stem}.png" for stem in stems),
    }
    assert write_contact_sheet(results, options, model) is not None
    assert {result.state for result in predict_files(model, list_images(pattern), options)} == {SKIPPED, FAILED}


def test_inputs_whose_outputs_would_be_mixed_up_are_refused(tmp_path: Path):
    model, root = network(tmp_path), tmp_path / "in"
    files = [save(root / name, noise(20, 20, 3)) for name in ("overlays/a.png", "sheet.png", "b/c.png")]
    inside, outside = BatchOptions(root / "out", "x", root=root), BatchOptions(tmp_path / "out", "x", root=root)
    with pytest.raises(UserError, match=r"inside .*in, whose sub-folders are searched for images"):
        predict_files(model, files, inside)
    results = predict_files(model, [*files, save(tmp_path / "elsewhere.png", noise(20, 20, 3))], outside)
    assert [result.state for result in results] == [FAILED, DONE, DONE, FAILED]
    assert "writes its own files into overlays/" in results[0].message
    assert f"outside {root}" in results[3].message
    with pytest.raises(UserError, match=r"sheet=true: .*sheet.png holds the labels of an image"):
        write_contact_sheet([results[1]], outside, model)
    with pytest.raises(UserError, match=r"contains c.png, an input"):
        predict_files(model, files[2:], BatchOptions(root, "x", root=root))
    with pytest.raises(UserError, match=r"labels: unknown 'colour'; did you mean color\?"):
        predict_files(model, files, BatchOptions(tmp_path / "out", "x", labels="colour"))


def test_files_of_the_channels_of_an_image_are_predicted_together(tmp_path: Path):
    model = network(tmp_path, channels=2, **CHANNELS)
    image, root = noise(90, 50, 2), tmp_path / "in"
    for name, pixels in {"a_T1": image[..., 1], "a_t2": image[..., 0], "b_T2": image[..., 0]}.items():
        save(root / f"{name}.png", pixels)
    save(root / "c_T1.png", noise(20, 20))
    save(root / "c_T2.png", noise(20, 21))
    np.save(root / "d.npy", image)
    save(root / "e.png", image[..., 0])
    options = BatchOptions(tmp_path / "out", "x", TILED, overlays=True)
    results = predict_files(model, list_images(str(root)), options)
    assert [result.state for result in results] == [DONE, FAILED, FAILED, DONE, FAILED], results
    expected = model.predict(image, tile=TILED.tile, overlap=TILED.overlap, precision="32-true")
    for name in "ad":
        assert np.array_equal(read_image(tmp_path / "out" / f"{name}.png"), expected)
    assert "b_T2.png: no file of channel T1 of b; the network was trained on one file a channel" in results[1].message
    assert "20 x 20, but c_T2.png is 20 x 21; expected one size for all channels" in results[2].message
    assert "1 channels, but the network was trained on 2, each in a file (T2, T1)" in results[4].message
    assert write_contact_sheet(results, options, model) is not None
    states = [result.state for result in predict_files(model, list_images(str(root)), options)]
    assert states == [SKIPPED, FAILED, FAILED, SKIPPED, FAILED]
    save(root / "a_T1.png", image[..., 0])
    assert predict_files(model, list_images(str(root)), options)[0].state == DONE


@pytest.mark.parametrize(
    ("pattern", "name", "stem", "missing"),
    [
        ("{id}_{channel}.png", "case_0_T2.png", "case_0", 1),
        ("{id}_{channel}.*", "case.1_T2.nii.gz", "case.1", 1),
        ("{channel}-*-{id}.tif", "T1-x(1)-7.tif", "7", 1),
        ("{id}_{channel}.png", "case_T3.png", "case_T3", 0),
        ("{id}.png", "case_T2.png", "case_T2", 0),
    ],
)
def test_the_pattern_of_the_training_identifies_the_channels(pattern: str, name: str, stem: str, missing: int):
    (image,) = group_channels([Path(name)], CHANNELS | {"channel_file": pattern})
    assert image.stem == stem and len(image.missing) == missing


def test_the_exif_orientation_is_warned_of_and_not_applied(tmp_path: Path):
    model, image, exif = network(tmp_path), Image.fromarray(noise(20, 30, 3)), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    files = [tmp_path / name for name in ("a.jpg", "b.png", "c.webp")]
    for path in files:
        image.save(path, exif=exif)
        assert open_stored(path).orientation == 6
    for state in (DONE, SKIPPED):
        (result,) = predict_files(model, files[:1], BatchOptions(tmp_path / "out", "x"))
        assert result.state == state and "EXIF orientation (6) is not applied" in result.message
    assert read_image(tmp_path / "out" / "a.png").shape == (20, 30)


@pytest.mark.slow
def test_the_command_reports_failures_and_exits_with_status_1(tmp_path: Path):
    save(tmp_path / "my images" / "a, b.png", noise(40, 40, 3))
    (tmp_path / "my images" / "bad.png").write_bytes(b"")
    script = str(ROOT / "scripts" / "predict.py")
    arguments = [script, f"ckpt={checkpoint(tmp_path)}", "input=my images", "output=my labels", "sheet=true"]
    result = processes.run(arguments, tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: my images/bad.png: cannot be read as an image")
    assert read_image(tmp_path / "my labels" / "a, b.png").shape == (40, 40)
    record = json.loads((tmp_path / "my labels" / "records" / "a, b.png.json").read_text())
    assert record["image"]["name"] == "a, b.png" and record["options"]["tta"] is False
    assert "sheet.png" in result.stdout
    for wrong_arguments, message in (
        ([*arguments, "tiel=[8,8]"], "did you mean tile"),
        ([script, *arguments[2:]], "ckpt: is required"),
    ):
        result = processes.run(wrong_arguments, tmp_path)
        assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1
