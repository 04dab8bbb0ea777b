"""Tests of what masks store: palettes, alpha, channel axes, two meanings of 255."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
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
from unet.training.console import print_scores
from unet.training.data_warnings import missing_classes

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
        assert f"1: {name}, 255: ignore}}' if 255 is unlabelled" in finding.text
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


@pytest.mark.parametrize("middle", [128, 85, 100])
def test_grey_levels_beside_255_are_never_taken_for_unlabelled_pixels_unasked(folder, middle, tmp_path):
    levels = np.array([0, middle, 255], np.uint8)
    for index, path in enumerate(masks(folder)):
        swap(path, levels[noise(12, 10, below=3, seed=index)])
    (finding,) = findings_of(folder, ERROR)
    assert f"{{0: background, {middle}: ignore, 255: cell}}' if 255 is cell and {middle} an edge" in finding.text
    assert f"{{0: background, {middle}: cell, 255: ignore}}' if 255 is unlabelled" in finding.text
    (finding,) = findings_of(folder, ERROR, has_classes=False)
    assert f"{{0: background, {middle}: class_1, 255: class_2}}' if 255 is class_2" in finding.text
    with pytest.raises(UserError, match="255 may be a class or unlabelled"):
        write_corrected_copy(survey_folder(folder), tmp_path / "out")
    three = survey_folder(folder, classes=["a", "b", "c"]).encoding
    assert three.meaning == {0: "a", middle: "b", 255: "c"} and not three.alternatives


def test_soft_edges_of_masks_are_not_a_class(folder):
    ramp = np.full((12, 10), 255, np.uint8)
    ramp[:, :4], ramp[:, 4] = 0, np.arange(70, 94, 2)  # 12 values of an anti-aliased edge, 76 more often
    ramp[:6, 5] = 76
    for path in masks(folder):
        swap(path, ramp)
    findings = findings_of(folder, ERROR)
    assert not any(
        "76: cell, 255: ignore}' and" in finding.text or "masks need" in finding.text for finding in findings
    )


def test_labels_beside_255_need_no_choice(folder):
    values = np.array([0, 1, 2, 255], np.uint8)
    for path in masks(folder):
        swap(path, values[noise(12, 10, below=4)])
    assert survey_folder(folder, has_classes=False).encoding.meaning[255] == "ignore"


def test_empty_grey_and_palette_masks_among_colour_masks_have_colours(folder, tmp_path):
    colors = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    for index, path in enumerate(masks(folder)):
        if index % 4 == 3:
            palette(path, LABELS, *map(tuple, colors[::-1].tolist()))  # index 0 is red
        else:
            empty = LABELS * np.uint8(0)
            swap(path, [colors[LABELS], np.stack([empty] * 3, -1), empty][index % 4])
    encoding = survey_folder(folder, has_classes=False).encoding
    assert encoding.overrides == ("data.source.values={0 0 0: background, 255 0 0: foreground}",)
    values = {"0 0 0": "background", "255 0 0": "cell"}
    assert findings_of(folder, ERROR, values=values) == []
    labels = LabelMap(values, CLASSES)
    found = [int(labels.read(path).sum()) for path in masks(folder)]
    red = int(LABELS.sum())
    assert found == [red, 0, 0, LABELS.size - red] * 2
    copy = write_corrected_copy(survey_folder(folder, has_classes=False), tmp_path / "out")
    written = [int(np.asarray(Image.open(path)).sum()) for path in sorted((tmp_path / "out").rglob("masks/*"))]
    assert sorted(written) == sorted(found) and not copy.exclusions


def test_a_black_transparent_mask_is_empty(folder):
    swap(masks(folder)[0], np.zeros((12, 10, 4), np.uint8))
    assert int(LabelMap(None, CLASSES).read(masks(folder)[0]).sum()) == 0
    swap(masks(folder)[1], alpha([255, 255, 255]) * np.array([1, 1, 1, 0], np.uint8))
    with pytest.raises(UserError, match="a mask of one colour, whose shape is in the alpha channel"):
        read_mask(masks(folder)[1])


def test_photographs_as_masks_are_refused_at_once(folder):
    for index, path in enumerate(masks(folder)):
        swap(path, noise(12, 10, 3, seed=index))
    (finding,) = findings_of(folder, ERROR, has_classes=False)
    assert "which are none of the 2 classes" in finding.text and len(finding.text) < 400


def test_arrays_of_bool_in_tiff_and_of_other_types_are_what_was_written(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", LABELS > 0)
    tifffile.imwrite(tmp_path / "bare.tif", LABELS > 0, metadata=None)
    for name in ("plain", "bare"):
        assert (LabelMap(None, CLASSES).read(tmp_path / f"{name}.tif") == LABELS).all()
    Image.fromarray(LABELS > 0).save(tmp_path / "pillow.tif")
    assert (LabelMap(None, CLASSES).read(tmp_path / "pillow.tif") == LABELS).all()
    for dtype in ("bool", "int64", "float32", "uint16"):
        np.save(tmp_path / f"{dtype}.npy", LABELS.astype(dtype))
        assert (LabelMap(None, CLASSES).read(tmp_path / f"{dtype}.npy") == LABELS).all()


def test_nan_in_masks_is_one_value_and_negative_values_are_no_background(folder):
    for path in masks(folder):
        np.save(path.with_suffix(".npy"), np.where(LABELS, np.nan, 0))
        path.unlink()
    (finding,) = findings_of(folder, ERROR)
    assert "masks contain nan, which is none" in finding.text
    for path in masks(folder):
        np.save(path, -LABELS.astype(np.int8))
    assert survey_folder(folder, has_classes=False).encoding.meaning == {0: "background", -1: "foreground"}


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


def test_every_colour_of_jpeg_masks_is_found(folder, tmp_path):
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    labels = np.zeros((48, 40), np.uint8)
    labels[5:21, 3:19], labels[24:43, 18:35] = 1, 2
    for path in masks(folder):
        swap(path.parent.parent / "images" / path.name, noise(48, 40, 3, seed=int(path.stem)))
        swap(path, colors[labels], ".jpg")
    survey = survey_folder(folder, has_classes=False)
    assert len(survey.encoding.classes) >= 3, "no colour is merged into another; blurred edges may be listed, too"
    write_corrected_copy(survey, tmp_path / "out")
    written = np.asarray(Image.open(next((tmp_path / "out").rglob("masks/*.png"))))
    assert len({written[10, 10], written[30, 25], written[0, 0]}) == 3


def test_a_reordered_palette_among_grey_masks_is_an_error(tmp_path: Path):
    gray, same, reordered = tmp_path / "gray.png", tmp_path / "same.png", tmp_path / "reordered.png"
    Image.fromarray(LABELS).save(gray)
    for path, colors in ((same, [0, 0, 0, 255, 0, 0, 0, 255, 0]), (reordered, [255, 0, 0, 0, 0, 0, 0, 255, 0])):
        image = Image.fromarray(LABELS).convert("P")
        image.putdata(LABELS.ravel().tolist())
        image.putpalette(colors)
        image.save(path)
    classes = [f"class {label}" for label in range(int(LABELS.max()) + 1)]
    labels = LabelMap(None, classes)
    assert np.array_equal(labels.read(gray), labels.read(same))
    with pytest.raises(UserError, match=r"black is not index 0 of its palette, and gray\.png has no palette"):
        LabelMap(None, classes).read(gray), labels.read(reordered)
    labels = LabelMap(None, classes)
    assert np.array_equal(labels.read(reordered), LABELS), "alone it has the labels that it stores"
