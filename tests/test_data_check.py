"""Tests of the data check: its findings and the overrides it suggests."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from folders import CLASSES, folder_of, noise, save, scanned, swap
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from unet.data.folder import Folder
from unet.data.label_map import LabelMap
from unet.data_check.file_facts import read_facts
from unet.data_check.findings import ERROR, NOTE, WARNING, Finding, TrainingRequirements, collect_findings
from unet.data_check.mask_encoding import infer_encoding
from unet.data_check.mask_values import find_levels, looks_lossy
from unet.data_check.shapes import measure_objects
from unet.data_check.survey import Survey, survey_data
from unet.errors import UserError

TEN = [f"{index:02}" for index in range(10)]


def survey_folder(root: Path, has_classes: bool = True, **options) -> Survey:
    return survey_data(Folder(str(root), **{"classes": CLASSES, **options}), has_classes)


def findings_of(root: Path, kind: str, has_classes: bool = True, **options) -> list[Finding]:
    return [
        finding for finding in collect_findings(survey_folder(root, has_classes, **options)) if finding.kind == kind
    ]


def single_finding(root: Path, kind: str, *words: str, has_classes: bool = True, **options) -> Finding:
    """Return the only finding of a kind after checking that it is one line with these words."""
    (finding,) = findings_of(root, kind, has_classes, **options)
    assert "\n" not in finding.text and [word for word in words if word not in finding.text] == [], finding.text
    return finding


def parse_overrides(overrides: tuple[str, ...]) -> dict:
    """Parse overrides as the command line does."""
    results = OverridesParser.create().parse_overrides(list(overrides))
    return {result.key_or_group.rpartition(".")[2]: result.value() for result in results}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, TEN, size=(40, 36))


def replace_masks(root: Path, make) -> None:
    for index, path in enumerate(sorted((root / "masks").iterdir())):
        swap(path, make(noise(40, 36, below=2, seed=index)))


def test_a_sound_folder_has_no_errors_and_its_counts_are_the_pixels(folder):
    data = survey_folder(folder)
    assert [finding for finding in collect_findings(data) if finding.kind != NOTE] == []
    ones = sum(int(noise(40, 36, below=2, seed=seed).sum()) for seed in range(10))
    assert data.class_counts(data.facts) == {"background": 10 * 40 * 36 - ones, "cell": ones}
    assert {split: len(facts) for split, facts in data.splits.items()} == {"train": 7, "val": 2, "test": 1}
    assert (data.spatial_dims, data.channels) == (2, 3)


def test_facts_of_an_item(tmp_path):
    folder_of(tmp_path, TEN)
    deep = np.array([[0, 4095], [7, 65535]], np.uint16)
    swap(tmp_path / "images" / "03.png", deep)
    swap(tmp_path / "masks" / "03.png", np.array([[0, 1], [1, 1]], np.uint8))
    item = next(item for item in survey_folder(tmp_path).facts if Path(item.name).stem == "03")
    assert item.image is not None and item.mask is not None
    assert (item.image.format.name, item.image.dtype) == ("PNG I;16", "uint16")
    assert (item.image.low, item.image.high, item.image.size, item.image.channels) == (0, 65535, (2, 2), 1)
    assert item.mask.counts == {0: 1, 1: 3}


def test_a_0_255_mask_gets_the_line_that_maps_it(folder):
    replace_masks(folder, lambda labels: 255 * labels)
    data = survey_folder(folder)
    values = parse_overrides(data.encoding.overrides)["values"]
    assert values == {0: "background", 255: "cell"}
    single_finding(folder, ERROR, "masks need 'data.source.values={0: background, 255: cell}'")
    assert findings_of(folder, ERROR, values=values) == []


def test_classes_are_generated_from_the_masks_if_the_user_names_none(folder):
    replace_masks(folder, lambda labels: 255 * labels)
    settings = parse_overrides(survey_folder(folder, has_classes=False).encoding.overrides)
    assert settings == {"values": {0: "background", 255: "foreground"}}
    assert findings_of(folder, ERROR, has_classes=False) == []
    assert len(scanned(folder, splits={"train": 0.7, "val": 0.3}, classes=None, **settings).samples["train"]) == 7


def test_a_palette_mask_stores_its_indices(folder):
    for index, path in enumerate(sorted((folder / "masks").iterdir())):
        image = Image.fromarray(noise(40, 36, below=2, seed=index)).convert("P")
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.save(path)
    data = survey_folder(folder)
    assert [finding for finding in collect_findings(data) if finding.kind == ERROR] == []
    assert set(data.counts) == {0, 1}


def test_a_colour_mask_gets_the_line_that_maps_it(folder):
    replace_masks(folder, lambda labels: np.array([[0, 0, 0], [128, 0, 64]], np.uint8)[labels])
    data = survey_folder(folder)
    single_finding(folder, ERROR, "'data.source.values={0 0 0: background, 128 0 64: cell}'")
    values = parse_overrides(data.encoding.overrides)["values"]
    assert findings_of(folder, ERROR, values=values) == []
    again = survey_folder(folder, values=values)
    assert again.class_counts(again.facts) == data.class_counts(data.facts)


def test_a_jpeg_mask_is_lossy_and_its_values_are_mapped_to_the_nearest_levels(folder):
    mask = np.zeros((40, 36), np.uint8)
    mask[8:30, 6:20] = 255
    for path in sorted((folder / "masks").iterdir()):
        swap(path, mask, ".jpg")
    data = survey_folder(folder, has_classes=False)
    assert data.encoding.lossy and len(data.counts) > 2
    assert data.class_counts(data.facts)["foreground"] == pytest.approx(10 * 22 * 14, rel=0.02)
    (finding,) = findings_of(folder, ERROR, has_classes=False)
    assert "lossy" in finding.text and len(finding.files) == 10


def test_instance_ids_are_an_error(folder):
    replace_masks(folder, lambda labels: (labels * np.arange(1, 37)).astype(np.uint16))
    assert survey_folder(folder).encoding.has_instance_ids
    single_finding(folder, ERROR, "number their objects")


@pytest.mark.parametrize(
    "counts, has_classes, lossy, expected",
    [
        ({0: 5, 1: 3}, True, False, ((), {0: "background", 1: "cell"})),
        ({0: 5, 1: 3, 255: 1}, True, False, (("values",), {0: "background", 1: "cell", 255: "ignore"})),
        ({1: 5, 2: 3}, True, False, (("values",), {1: "background", 2: "cell"})),
        ({0: 5, 255: 3, 3: 1, 250: 1}, True, True, (("values",), {0: "background", 255: "cell"})),
        ({0: 5, 1: 3, 2: 1}, False, False, (("classes",), {0: "background", 1: "class_1", 2: "class_2"})),
        ({0: 9, 255: 1}, False, False, (("values",), {0: "background", 255: "foreground"})),
    ],
)
def test_values_are_mapped_to_classes(counts, has_classes, lossy, expected):
    encoding = infer_encoding(counts, LabelMap(None, CLASSES), has_classes, lossy)
    keys, meaning = expected
    assert tuple(parse_overrides(encoding.overrides)) == keys
    assert {key: encoding.meaning[key] for key in meaning} == meaning
    assert encoding.unknown == ()


def test_values_without_a_class_are_an_error_that_names_the_files(folder):
    swap(folder / "masks" / "04.png", np.full((40, 36), 7, np.uint8))
    swap(folder / "masks" / "05.png", np.full((40, 36), 9, np.uint8))
    finding = single_finding(folder, ERROR, "7, 9", "none of the 2 classes")
    assert [Path(file).stem for file in finding.files] in (["04", "05"], ["05", "04"])


def test_levels_and_lossy_masks():
    counts = {0: 600, 2: 30, 5: 5, 128: 200, 130: 20, 255: 140, 60: 3}
    assert find_levels(counts) == [0, 128, 255]
    assert not looks_lossy(counts), "seven values"
    ripples = {0: 600, 255: 300, **dict.fromkeys(range(1, 12), 4), **dict.fromkeys(range(245, 255), 4)}
    assert looks_lossy(ripples)
    assert not looks_lossy({0: 600, **dict.fromkeys(range(1, 40), 10)}), "instance ids"
    assert not looks_lossy({value / 40: 10 for value in range(41)}), "a soft mask"


def test_all_invalid_files_are_reported(folder):
    truncate(folder / "images" / "04.png")
    swap(folder / "masks" / "04.png", np.full((40, 36), 2, np.uint8))
    (folder / "masks" / "07.png").write_bytes(b"x")
    (folder / "masks" / "08.png").unlink()
    assert len(findings_of(folder, ERROR)) == 4
    assert len(survey_folder(folder).images) == 8


def test_any_exception_of_a_decoder_is_an_error_of_the_file(folder, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("odd\nbytes")

    monkeypatch.setattr("unet.data.files.open_channels", fail)
    facts = read_facts(survey_folder(folder).facts[0].item, "train", False)
    assert facts.image is None and facts.errors == (f"{facts.name}: cannot be read (RuntimeError: odd bytes)",)


def test_unmet_requirements_of_the_training_are_errors(folder):
    data = survey_folder(folder)
    errors = [
        finding.text for finding in collect_findings(data, TrainingRequirements(8, None, 64)) if finding.kind == ERROR
    ]
    assert len(errors) == 2 and "7 training images" in errors[0] and "less than 64 pixels" in errors[1]
    assert [f for f in collect_findings(data, TrainingRequirements(8, 16, 32)) if f.kind == ERROR] == []


def test_patterns_are_suggested_for_masks_with_another_name(folder):
    for path in (folder / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_seg"))
    with pytest.raises(UserError, match=r"data\.source\.mask=") as error:
        survey_folder(folder)
    patterns = parse_overrides(tuple(shlex.split(str(error.value).partition("add ")[2].rpartition("add ")[2])))
    assert patterns == {"image": "images/{id}.*", "mask": "masks/{id}_seg.*"}
    assert findings_of(folder, ERROR, **patterns) == []


def test_a_folder_too_small_to_divide_is_checked_without_splits(tmp_path):
    folder_of(tmp_path, ["a", "b"])
    data = survey_folder(tmp_path)
    assert [len(facts) for facts in data.splits.values()] == [2]
    single_finding(tmp_path, ERROR, "cannot be divided")


def test_equal_pixels_in_two_splits_are_a_warning(folder):
    splits = survey_folder(folder).splits
    train, val = (Path(splits[split][0].name).stem for split in ("train", "val"))
    pixels = np.asarray(Image.open(folder / "images" / f"{train}.png"))
    (folder / "images" / f"{val}.png").unlink()
    save(folder / "images" / f"{val}.bmp", pixels)  # another format, the same pixels
    warnings = findings_of(folder, WARNING)
    assert ["several splits" in warnings[0].text, "different masks" in warnings[1].text] == [True, True]
    assert all(stem in warnings[0].files[0] for stem in (train, val))
    (pair,) = scanned(folder, splits={"train": 0.7, "val": 0.15, "test": 0.15}).in_two_splits
    assert {Path(item.name).stem for item in pair} == {train, val}


def test_masks_without_foreground_and_absent_classes(folder):
    replace_masks(folder, lambda labels: 0 * labels)
    notes = {finding.text for kind in (NOTE, WARNING) for finding in findings_of(folder, kind)}
    assert {
        "10 of 10 masks contain only background",
        "train has only background, so nothing can be learned; check the masks and data.source.values",
    } <= notes


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def exif(path: Path, pixels: np.ndarray, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=tags)


def test_exif_rotation_is_an_error_if_only_the_rotated_image_has_the_size_of_its_mask(folder):
    pixels = noise(36, 40, 3)  # rotated by 90 degrees against its mask
    exif(folder / "images" / "04.png", pixels, 6)
    exif(folder / "images" / "05.png", noise(40, 36, 3, seed=77), 3)  # upside down: the size is the same
    finding = single_finding(folder, ERROR, "EXIF", "fix=OUT")
    assert [Path(file).stem for file in finding.files] == ["04"]
    ambiguous = next(finding for finding in findings_of(folder, WARNING) if "drawn on" in finding.text)
    assert [Path(file).stem for file in ambiguous.files] == ["05"]


def test_a_rotated_tiff_is_used_as_stored_as_other_formats_are(folder):
    exif(folder / "images" / "04.tif", noise(36, 40, 3), 6)
    (folder / "images" / "04.png").unlink()
    (finding,) = findings_of(folder, ERROR)
    assert "only after the EXIF rotation, which training does not apply" in finding.text


def test_bit_depths_that_differ(tmp_path):
    folder_of(tmp_path, TEN)
    for index, path in enumerate((tmp_path / "images").iterdir()):
        swap(path, noise(12, 10, dtype="uint16" if index else "uint8", seed=index))
    single_finding(tmp_path, WARNING, "uint16 (9), uint8 (1)")


def test_areas_extents_and_widths_of_objects():
    mask = np.zeros((30, 60), bool)
    mask[3:6, 5:55] = True  # a bar of 3 x 50
    mask[20:28, 10:18] = True  # a square of 8 x 8
    mask[15, 58] = mask[16, 59] = True  # two pixels that touch at a corner
    shapes = measure_objects(mask)
    assert sorted(shapes.areas) == [2, 64, 150] and sorted(shapes.extents) == [2, 8, 50]
    widths = dict(zip(shapes.areas, shapes.widths, strict=True))
    assert widths[150] == pytest.approx(3, abs=0.2) and 4 <= widths[64] <= 8 and widths[2] <= 1.5


def test_specks_do_not_affect_the_size_of_a_class():
    mask = np.zeros((80, 80), bool)
    mask[20:60, 20:60] = True
    mask[2:12:2, 2::4] = True  # a hundred specks
    shapes = measure_objects(mask)
    assert len(shapes) == 101 and shapes.extent == 40 and shapes.width > 15


def test_objects_of_sequences_and_volumes():
    line = measure_objects(np.array([0, 1, 1, 1, 0, 0, 1], bool))
    assert (line.areas, line.extents, line.widths) == ([3, 1], [3, 1], [3.0, 1.0])
    volume = np.zeros((9, 9, 40), bool)
    volume[3:6, 3:6] = True
    rod = measure_objects(volume)
    assert (rod.areas, rod.extents) == ([360], [40]) and rod.widths[0] == pytest.approx(3, abs=0.3)
    assert len(measure_objects(np.zeros((4, 4), bool))) == 0


def test_sequences_are_checked(tmp_path):
    for kind, below in (("images", 9), ("masks", 2)):
        (tmp_path / kind).mkdir()
        for stem in TEN:
            np.save(tmp_path / kind / f"{stem}.npy", noise(300, below=below, seed=int(stem)))
    data = survey_folder(tmp_path)
    assert data.spatial_dims == 1 and [f for f in collect_findings(data) if f.kind == ERROR] == []
