"""Tests of what masks store: palettes, alpha, channel axes, two meanings of 255."""

from pathlib import Path

import numpy as np
import pytest
from conftest import config
from folders import CLASSES, folder_of, noise, save, scanned, sentence, swap
from PIL import Image
from test_data_check import findings_of, parse_overrides, survey_folder

from unet.data.label_map import LabelMap, MaskError
from unet.data.mask_reading import read_mask
from unet.data_check.advice import scan_data
from unet.data_check.corrected_copy import write_corrected_copy
from unet.data_check.findings import ERROR, WARNING
from unet.errors import UserError
from unet.training.build import build_data
from unet.training.console import missing_classes, print_scores

LABELS = noise(12, 10, below=2)
ALL = {"train": 1, "val": 1}


def palette(path: Path, labels: np.ndarray, *colors: tuple[int, ...]) -> None:
    image = Image.fromarray(labels).convert("P")
    image.putpalette([value for color in colors for value in color])
    image.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, list("01234567"))


def masks(root: Path) -> list[Path]:
    return sorted((root / "masks").iterdir())


def test_palettes_that_disagree_are_an_error_with_the_colours(folder):
    for index, path in enumerate(masks(folder)):
        colors = [(0, 0, 0), (255, 0, 0)]
        palette(path, LABELS ^ (index % 2), *(colors[::-1] if index % 2 else colors))
    with pytest.raises(MaskError) as error:
        scanned(folder, splits=ALL)
    sentence(error, "index", "'data.source.values={", "0 0 0: NAME", "255 0 0: NAME")
    (finding,) = findings_of(folder, ERROR)
    assert "'data.source.values={" in finding.text and len(finding.files) == 8
    overrides = parse_overrides(survey_folder(folder).encoding.overrides)["values"]
    assert sorted(overrides) == ["0 0 0", "255 0 0"] and sorted(overrides.values()) == CLASSES
    assert findings_of(folder, ERROR, values=overrides) == []
    data = scanned(folder, values=overrides, splits=ALL)
    assert len({tuple(counts) for counts in data.samples["train"].item_counts.tolist()}) == 1
    with pytest.raises(UserError, match=r"fix=.*unknown values"):
        write_corrected_copy(survey_folder(folder), folder / "out")


def test_palettes_may_differ_at_indices_that_do_not_occur(folder):
    for index, path in enumerate(masks(folder)):
        palette(path, LABELS, (0, 0, 0), (255, 0, 0), (index, index, 0))
    assert findings_of(folder, ERROR) == [] and scanned(folder, splits=ALL)


def test_a_gif_has_its_colours_in_whatever_order_its_palette_is(tmp_path):
    for name, colors in {"a": [0, 255], "b": [255, 0]}.items():
        labels = LABELS if name == "a" else 1 - LABELS
        palette(tmp_path / f"{name}.gif", labels, *((value,) * 3 for value in colors))
    labels = LabelMap({0: "background", 255: "cell"}, CLASSES)
    assert (labels.read(tmp_path / "a.gif") == LABELS).all() and (labels.read(tmp_path / "b.gif") == LABELS).all()


OPAQUE = LABELS * np.uint8(255)


def alpha(colors, values: np.ndarray = OPAQUE) -> np.ndarray:
    """Return a colour or, by label, two, with alpha."""
    pixels = np.array(colors, np.uint8)
    pixels = pixels[LABELS] if pixels.ndim == 2 else np.broadcast_to(pixels, (*values.shape, len(pixels)))
    return np.concatenate([pixels, values[..., None]], -1)


@pytest.mark.parametrize(
    "pixels, words",
    {
        "white RGBA": (alpha([255, 255, 255]), "one colour"),
        "black LA": (alpha([0]), "one colour"),
        "soft edges": (alpha([255, 0, 0], noise(12, 10)), "one colour"),
        "all transparent": (alpha([255, 255, 255], 0 * LABELS), "one colour"),
    }.values(),
)
def test_a_shape_in_the_alpha_channel_is_an_error(tmp_path, pixels, words):
    with pytest.raises(UserError) as error:
        read_mask(save(tmp_path / "m.png", pixels))
    sentence(error, "m.png", words, "alpha channel", "getchannel('A')")


def test_a_colour_both_transparent_and_visible_is_an_error(tmp_path):
    pixels = alpha([[255, 255, 255], [255, 0, 0]])
    pixels[0, 0] = 255, 255, 255, 255
    with pytest.raises(UserError, match="a colour both transparent and visible"):
        read_mask(save(tmp_path / "m.png", pixels))


def test_alpha_is_left_out_where_the_colours_have_the_shape(tmp_path):
    labels = LabelMap({0: "background", 255: "cell"}, CLASSES)
    for pixels in (alpha([[0] * 3, [255] * 3]), alpha([[0], [255]]), alpha([[0] * 3, [255] * 3], 255 + 0 * LABELS)):
        assert (labels.read(save(tmp_path / "m.png", pixels)) == LABELS).all()
    image = Image.fromarray(LABELS).convert("P")
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(tmp_path / "p.png", transparency=0)
    assert (LabelMap(None, CLASSES).read(tmp_path / "p.png") == LABELS).all(), "a palette's indices have the shape"
    with pytest.raises(UserError, match="alpha channel"):
        read_mask(tmp_path / "p.png", colors=True)


ARRAYS = {
    "(H, W, 1)": LABELS[..., None],
    "(1, H, W)": LABELS[None],
    "bool": LABELS.astype(bool),
    "0.0 and 1.0": LABELS.astype(float)[..., None],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_masks(tmp_path, kind):
    np.save(tmp_path / "m.npy", ARRAYS[kind])
    assert (LabelMap(None, CLASSES).read(tmp_path / "m.npy") == LABELS).all()


@pytest.mark.parametrize(
    "array, words",
    [
        (np.eye(2, dtype=np.uint8)[LABELS], "a one-hot mask of 12 x 10 x 2"),
        (np.moveaxis(np.eye(3)[LABELS], -1, 0), "argmax(0)"),
        (np.stack([noise(64, 64, below=2)] * 3, -1), "if the last axis is colours"),
    ],
)
def test_channels_of_classes_are_refused(tmp_path, array, words):
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(UserError) as error:
        read_mask(tmp_path / "m.npy")
    sentence(error, words)


def half_and_half(root: Path) -> None:
    for index, path in enumerate(masks(root)):
        swap(path, LABELS * np.uint8(255 if index % 2 else 1))


def test_both_readings_of_255_are_offered(folder, tmp_path):
    half_and_half(folder)
    for has_classes in (True, False):
        (finding,) = findings_of(folder, ERROR, has_classes=has_classes)
        name = "cell" if has_classes else "foreground"
        assert f"1: {name}, 255: {name}}}' if 255 is {name}" in finding.text and len(finding.files) == 4
        assert f"1: {name}, 255: ignore}}' if it is unlabelled" in finding.text
    run = config("data=folder", f"data.root={folder}", "data.source.classes=[background,cell]", "data.batch_size=2")
    data = build_data(run)
    with pytest.raises(UserError) as error:
        scan_data(data, run)
    sentence(error, finding.text.replace("foreground", "cell").split("; add")[0], "check_data", " and 3 more")
    with pytest.raises(UserError, match="255 may be a class or unlabelled"):
        write_corrected_copy(survey_folder(folder), tmp_path / "out")


def test_255_beside_other_labels_is_ignored(folder):
    half_and_half(folder)
    swap(masks(folder)[1], np.where(noise(12, 10, below=5) == 0, 255, LABELS).astype(np.uint8))
    (finding,) = findings_of(folder, ERROR)
    assert "masks need 'data.source.values={0: background, 1: cell, 255: ignore}'" in finding.text


def test_one_fault_of_all_files_is_one_finding(folder):
    for path in masks(folder):
        swap(path, alpha([255, 255, 255]))
    (finding,) = findings_of(folder, ERROR)
    assert finding.text.startswith("8 files: a mask of one colour") and len(finding.files) == 8


def test_a_training_split_without_a_class_is_warned_of(folder, capsys):
    for path in masks(folder):
        swap(path, 0 * LABELS)
    assert missing_classes(scanned(folder, splits=ALL)) is not None
    assert any("train has only background" in finding.text for finding in findings_of(folder, WARNING))
    print_scores(
        {"test/iou/background": 1.0, "test/miou": 1.0, "test/images": 3, "test/absent": ["cell"]},
        "test",
        CLASSES,
        "last",
    )
    assert "warning: test has no pixel of cell" in capsys.readouterr().out
