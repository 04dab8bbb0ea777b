"""Tests of masks from labelme and COCO JSON."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from folders import CLASSES, noise, save, sentence
from PIL import Image
from test_data_check import findings_of, parse_overrides, survey_folder

from unet.data.annotations import decode_counts, decode_rle, read_labelme
from unet.data.folder import Folder
from unet.data.label_map import LabelMap
from unet.data_check.findings import ERROR
from unet.errors import UserError

SQUARE = [[2, 3], [6, 3], [6, 8], [2, 8]]  # 4 x 5 pixels: columns 2 to 5, rows 3 to 7


def shape(kind: str, points: list, label: str = "cell", **more) -> dict:
    return {"label": label, "shape_type": kind, "points": points, **more}


def labelme(path: Path, *shapes: dict, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imageHeight": size[0], "imageWidth": size[1], "shapes": list(shapes)}))
    return path


def drawn(path: Path) -> np.ndarray:
    mask = read_labelme(path).draw()
    return np.array([key not in (0,) for key in mask.names])[mask.pixels]


def test_shapes_have_the_pixels_whose_centres_they_contain(tmp_path):
    expected = np.zeros((12, 10), bool)
    expected[3:8, 2:6] = True
    for kind, points in (("polygon", SQUARE), ("rectangle", [[2, 3], [6, 8]]), ("rectangle", [[6, 8], [2, 3]])):
        assert (drawn(labelme(tmp_path / "a.json", shape(kind, points))) == expected).all(), kind
    assert (drawn(labelme(tmp_path / "a.json", shape("rectangle", SQUARE))) == expected).all(), "all four corners"
    circle = drawn(labelme(tmp_path / "c.json", shape("circle", [[5, 5], [5, 7]])))
    y, x = np.mgrid[:12, :10] + 0.5
    assert (circle == ((y - 5) ** 2 + (x - 5) ** 2 < 4)).all()
    bitmap = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8) * np.uint8(255)).save(bitmap, "PNG")
    text = base64.b64encode(bitmap.getvalue()).decode()
    mask = drawn(labelme(tmp_path / "m.json", shape("mask", [[4, 1], [5, 2]], mask=text)))
    assert np.argwhere(mask).tolist() == [[1, 5], [2, 4], [2, 5]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images with a square each, in labelme files."""
    for n in range(6):
        save(tmp_path / f"images/{n}.png", noise(12, 10, 3, seed=n))
        labelme(tmp_path / f"masks/{n}.json", shape("polygon", SQUARE))
    return tmp_path


def test_labelme_files_are_masks(root):
    labelme(root / "masks/0.json", shape("polygon", SQUARE), shape("rectangle", [[3, 3], [5, 5]], "background"))
    targets = {Path(i.name).stem: i.read()[1] for items in Folder(str(root), CLASSES).items.values() for i in items}
    assert [int((targets[str(n)] == 1).sum()) for n in range(6)] == [16, 20, 20, 20, 20, 20], "the hole is drawn last"


def test_names_of_shapes_are_classes_or_mapped(root):
    labelme(root / "masks/4.json", shape("polygon", SQUARE, "Zelle"))
    with pytest.raises(UserError) as error:
        [item.read() for items in Folder(str(root), CLASSES).items.values() for item in items]
    sentence(error, "4.json: Zelle in the annotations", "background, cell", "data.source.values")
    assert "Zelle" in findings_of(root, ERROR)[0].text
    values = {0: "background", "cell": "cell", "Zelle": "ignore"}
    items = Folder(str(root), None, values=values).items
    targets = {Path(item.name).stem: item.read()[1] for members in items.values() for item in members}
    assert int((targets["4"] == 255).sum()) == 20 == int((targets["3"] == 1).sum())


def test_the_data_check_takes_the_classes_from_the_shapes(root):
    labelme(root / "masks/4.json", shape("polygon", SQUARE, "große Zelle"))
    survey = survey_folder(root, has_classes=False)
    overrides = parse_overrides(survey.encoding.overrides)
    assert overrides == {"classes": ["background", "cell", "große Zelle"]}
    assert findings_of(root, ERROR, **overrides) == []
    assert survey.class_counts(survey.facts) == {"background": 6 * 100, "cell": 100, "große Zelle": 20}


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "0.json: no JSON"),
        ("[]", "a list in JSON"),
        ("{}", "0.json: not labelme's format"),
        (json.dumps({"images": []}), "COCO annotations of many images"),
        (json.dumps({"imageHeight": 12, "imageWidth": 10, "shapes": [shape("linestrip", SQUARE)]}), "type linestrip"),
        (json.dumps({"imageHeight": 12, "imageWidth": 10, "shapes": [shape("polygon", [[1, 2]])]}), "with 1 points"),
        (json.dumps({"imageHeight": 12, "imageWidth": 10, "shapes": [{"label": "a", "points": 3}]}), "not labelme's"),
        (json.dumps({"imageHeight": None, "imageWidth": 10, "shapes": []}), "not labelme's format"),
    ],
)
def test_malformed_annotations_are_one_sentence(root, content, words):
    (root / "masks/0.json").write_text(content)
    with pytest.raises(UserError) as error:
        [item.read() for items in Folder(str(root), CLASSES).items.values() for item in items]
    sentence(error, words)


def test_the_size_of_annotations_must_be_the_images(root):
    labelme(root / "masks/2.json", shape("polygon", SQUARE), size=(10, 12))
    assert "its mask is 10 x 12, the image 12 x 10" in findings_of(root, ERROR)[0].text


def test_labels_with_a_meaning_in_labelme(tmp_path):
    shapes = [shape("polygon", SQUARE, " cell "), shape("rectangle", [[2, 3], [4, 8]], "_background_")]
    path = labelme(tmp_path / "a.json", *shapes, shape("rectangle", [[0, 0], [2, 2]], "__ignore__"))
    labels = LabelMap(None, CLASSES).read(path)
    assert [int((labels == label).sum()) for label in (0, 1, 255)] == [106, 10, 4]
    with pytest.raises(UserError) as error:
        read_labelme(labelme(tmp_path / "b.json", shape("polygon", SQUARE) | {"label": None}))
    sentence(error, "b.json: not labelme's format", "a shape without label")


def test_run_lengths_of_coco():
    counts = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert decode_counts("61X13mN000`0") == counts, "as pycocotools encodes them"
    bitmap = decode_rle(counts, (9, 10))
    assert bitmap.sum() == 13 and bitmap[6, 0] and bitmap[2:6, 5].all(), "column by column"
    with pytest.raises(ValueError, match="run lengths of 90 pixels for an image of 80"):
        decode_rle(counts, (8, 10))


def coco(path: Path, images: list[str], annotations: list[dict]) -> None:
    entries = [{"id": 7 + n, "file_name": name, "height": 12, "width": 10} for n, name in enumerate(images)]
    categories = [{"id": 3, "name": "cell"}, {"id": 9, "name": "other"}]
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))


def annotation(image: int, category: int, segmentation, **more) -> dict:
    return {"image_id": 7 + image, "category_id": category, "segmentation": segmentation, **more}


def test_one_coco_file_has_all_masks(tmp_path):
    for n in range(6):
        save(tmp_path / f"images/{n}.png", noise(12, 10, 3, seed=n))
    square = [[coordinate for point in SQUARE for coordinate in point]]
    column = {"size": [12, 10], "counts": [24, 12, 84]}  # column 2
    annotations = [
        annotation(0, 3, square),
        annotation(0, 9, column),
        annotation(1, 3, column, iscrowd=1),
        annotation(2, 3, [*square, [0, 0, 1, 0, 1, 1, 0, 1]]),
    ]
    coco(tmp_path / "annotations.json", [f"{n}.png" for n in range(6)], annotations)
    classes = ["background", "cell", "other"]
    items = Folder(str(tmp_path), classes, mask="annotations.json").items
    targets = {Path(item.name).stem: item.read()[1] for members in items.values() for item in members}
    counts = {name: [int((target == label).sum()) for label in (0, 1, 2, 255)] for name, target in targets.items()}
    assert counts["0"] == [93, 15, 12, 0], "the later one is drawn over the earlier one"
    assert counts["1"] == [108, 0, 0, 12], "a crowd is ignored"
    assert counts["2"] == [99, 21, 0, 0] and counts["3"] == [120, 0, 0, 0]
    with pytest.raises(UserError) as error:
        _ = Folder(str(tmp_path), classes).items
    sentence(error, "add 'data.source.image=\"images/{id}.*\"' 'data.source.mask=\"annotations.json\"'")
    coco(tmp_path / "annotations.json", ["0.png"], [])
    with pytest.raises(UserError, match="and 4 more images: no mask"):
        _ = Folder(str(tmp_path), classes, mask="annotations.json").items


def test_coco_files_of_splits(tmp_path):
    for split, count in {"train": 3, "val": 2}.items():
        for n in range(count):
            save(tmp_path / f"{split}2017/{n}.png", noise(12, 10, 3, seed=n))
        coco(tmp_path / f"instances_{split}2017.json", [f"{n}.png" for n in range(count)], [])
    source = Folder(str(tmp_path), CLASSES, image="{split}2017/{id}.png", mask="instances_{split}2017.json")
    assert {split: len(items) for split, items in source.items.items()} == {"train": 3, "val": 2}


@pytest.mark.parametrize(
    "segmentation", [[], {"size": [12, 10], "counts": [3]}, {"size": [10, 12], "counts": [100, 20]}, None]
)
def test_malformed_coco_is_one_sentence(tmp_path, segmentation):
    save(tmp_path / "images/0.png", noise(12, 10, 3))
    coco(tmp_path / "a.json", ["0.png"], [annotation(0, 3, segmentation)])
    with pytest.raises(UserError) as error:
        _ = Folder(str(tmp_path), CLASSES, mask="a.json").items
    sentence(error, "a.json: not COCO's format")


def test_coco_names_of_windows_are_found(tmp_path):
    save(tmp_path / "images/0.png", noise(12, 10, 3))
    coco(tmp_path / "a.json", ["C:\\data\\images\\0.png"], [])
    assert len(Folder(str(tmp_path), CLASSES, mask="a.json").all_items()) == 1
