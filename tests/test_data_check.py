"""The check of a data set: what it finds in files made for it, with the lines that set them right."""

from pathlib import Path

import numpy as np
import pytest
from folders import CLASSES, folder_of, noise, save, scanned, swap
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from unet.data.files import LabelMap
from unet.data.folder import Folder
from unet.data_check.file_facts import read_facts
from unet.data_check.findings import ERROR, NOTE, WARNING, Finding, TrainingRequirements, collect_findings
from unet.data_check.mask_encoding import infer_encoding
from unet.data_check.mask_values import find_levels, looks_lossy
from unet.data_check.shapes import measure_objects
from unet.data_check.survey import Survey, survey_data
from unet.errors import UserError

TEN = [f"{place:02}" for place in range(10)]


def surveyed(root: Path, named: bool = True, **options) -> Survey:
    return survey_data(Folder(str(root), **{"classes": CLASSES, **options}), named)


def found(root: Path, kind: str, named: bool = True, **options) -> list[Finding]:
    return [finding for finding in collect_findings(surveyed(root, named, **options)) if finding.kind == kind]


def only(root: Path, kind: str, *words: str, named: bool = True, **options) -> Finding:
    """The one finding of a kind, once it is seen to be a line with these words."""
    (finding,) = found(root, kind, named, **options)
    assert "\n" not in finding.text and [word for word in words if word not in finding.text] == [], finding.text
    return finding


def parsed(overrides: tuple[str, ...]) -> dict:
    """Overrides as the command line reads them."""
    results = OverridesParser.create().parse_overrides(list(overrides))
    return {result.key_or_group.rpartition(".")[2]: result.value() for result in results}


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return folder_of(tmp_path, TEN, size=(40, 36))


def masks_of(root: Path, make) -> None:
    for place, path in enumerate(sorted((root / "masks").iterdir())):
        swap(path, make(noise(40, 36, below=2, seed=place)))


# Nothing to find


def test_a_sound_folder_has_no_errors_and_its_counts_are_the_pixels(ten):
    data = surveyed(ten)
    assert [finding for finding in collect_findings(data) if finding.kind != NOTE] == []
    ones = sum(int(noise(40, 36, below=2, seed=seed).sum()) for seed in range(10))
    assert data.class_counts(data.facts) == {"background": 10 * 40 * 36 - ones, "cell": ones}
    assert {split: len(facts) for split, facts in data.splits.items()} == {"train": 7, "val": 2, "test": 1}
    assert (data.spatial_dims, data.channels) == (2, 3)


def test_what_a_file_holds_is_told_as_it_is(tmp_path):
    folder_of(tmp_path, TEN)
    deep = np.array([[0, 4095], [7, 65535]], np.uint16)
    swap(tmp_path / "images" / "03.png", deep)
    swap(tmp_path / "masks" / "03.png", np.array([[0, 1], [1, 1]], np.uint8))
    fact = next(one for one in surveyed(tmp_path).facts if Path(one.name).stem == "03")
    assert fact.image is not None and fact.mask is not None
    assert (fact.image.stored.kind, fact.image.dtype) == ("PNG I;16", "uint16")
    assert (fact.image.low, fact.image.high, fact.image.size, fact.image.channels) == (0, 65535, (2, 2), 1)
    assert fact.mask.counts == {0: 1, 1: 3}


# What masks store


def test_a_0_255_mask_gets_the_line_that_maps_it(ten):
    masks_of(ten, lambda labels: 255 * labels)
    data = surveyed(ten)
    values = parsed(data.encoding.overrides)["values"]
    assert values == {0: "background", 255: "cell"}
    only(ten, ERROR, "masks need 'data.source.values={0: background, 255: cell}'")
    assert found(ten, ERROR, values=values) == []


def test_classes_that_nobody_named_are_made_up_from_the_masks(ten):
    masks_of(ten, lambda labels: 255 * labels)
    settings = parsed(surveyed(ten, named=False).encoding.overrides)
    assert settings == {"values": {0: "background", 255: "foreground"}}
    assert found(ten, ERROR, named=False) == []
    assert len(scanned(ten, splits={"train": 0.7, "val": 0.3}, classes=None, **settings).samples["train"]) == 7


def test_a_palette_mask_stores_its_indices(ten):
    for place, path in enumerate(sorted((ten / "masks").iterdir())):
        image = Image.fromarray(noise(40, 36, below=2, seed=place)).convert("P")
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.save(path)
    data = surveyed(ten)
    assert [finding for finding in collect_findings(data) if finding.kind == ERROR] == []
    assert set(data.counts) == {0, 1}


def test_a_colour_mask_gets_the_line_that_maps_it(ten):
    masks_of(ten, lambda labels: np.array([[0, 0, 0], [128, 0, 64]], np.uint8)[labels])
    data = surveyed(ten)
    only(ten, ERROR, "'data.source.values={0 0 0: background, 128 0 64: cell}'")
    values = parsed(data.encoding.overrides)["values"]
    assert found(ten, ERROR, values=values) == []
    again = surveyed(ten, values=values)
    assert again.class_counts(again.facts) == data.class_counts(data.facts)


def test_a_jpeg_mask_is_lossy_and_is_snapped_to_the_levels_it_was_drawn_with(ten):
    drawn = np.zeros((40, 36), np.uint8)
    drawn[8:30, 6:20] = 255
    for path in sorted((ten / "masks").iterdir()):
        swap(path, drawn, ".jpg")
    data = surveyed(ten, named=False)
    assert data.encoding.lossy and len(data.counts) > 2
    assert data.class_counts(data.facts)["foreground"] == pytest.approx(10 * 22 * 14, rel=0.02)
    (finding,) = found(ten, ERROR, named=False)
    assert "lossy" in finding.text and len(finding.files) == 10


def test_masks_that_number_their_objects_are_told_from_classes(ten):
    masks_of(ten, lambda labels: (labels * np.arange(1, 37)).astype(np.uint16))
    assert surveyed(ten).encoding.numbered
    only(ten, ERROR, "number their objects")


@pytest.mark.parametrize(
    "counts, named, lossy, expected",
    [
        ({0: 5, 1: 3}, True, False, ((), {0: "background", 1: "cell"})),
        ({0: 5, 1: 3, 255: 1}, True, False, (("values",), {0: "background", 1: "cell", 255: "ignore"})),
        ({1: 5, 2: 3}, True, False, (("values",), {1: "background", 2: "cell"})),
        ({0: 5, 255: 3, 3: 1, 250: 1}, True, True, (("values",), {0: "background", 255: "cell"})),
        ({0: 5, 1: 3, 2: 1}, False, False, (("classes",), {0: "background", 1: "class_1", 2: "class_2"})),
        ({0: 9, 255: 1}, False, False, (("values",), {0: "background", 255: "foreground"})),
    ],
)
def test_what_values_stand_for(counts, named, lossy, expected):
    encoding = infer_encoding(counts, LabelMap(None, CLASSES), named, lossy)
    keys, meaning = expected
    assert tuple(parsed(encoding.overrides)) == keys
    assert {key: encoding.meaning[key] for key in meaning} == meaning
    assert encoding.unknown == ()


def test_too_many_values_for_the_classes_are_an_error_that_names_the_files(ten):
    swap(ten / "masks" / "04.png", np.full((40, 36), 7, np.uint8))
    swap(ten / "masks" / "05.png", np.full((40, 36), 9, np.uint8))
    finding = only(ten, ERROR, "7, 9", "none of the 2 classes")
    assert [Path(file).stem for file in finding.files] in (["04", "05"], ["05", "04"])


def test_levels_by_hand():
    counts = {0: 600, 2: 30, 5: 5, 128: 200, 130: 20, 255: 140, 60: 3}
    assert find_levels(counts) == [0, 128, 255]
    assert not looks_lossy(counts), "seven values are not suspicious"
    ripples = {0: 600, 255: 300, **dict.fromkeys(range(1, 12), 4), **dict.fromkeys(range(245, 255), 4)}
    assert looks_lossy(ripples)
    assert not looks_lossy({0: 600, **dict.fromkeys(range(1, 40), 10)}), "objects that are numbered"
    assert not looks_lossy({value / 40: 10 for value in range(41)}), "a soft mask"


# What would stop a training


def bad(root: Path, fault: str) -> None:
    image, mask = root / "images" / "04.png", root / "masks" / "04.png"
    if fault == "truncated":
        image.write_bytes(image.read_bytes()[:60])
    elif fault == "empty mask file":
        mask.write_bytes(b"")
    elif fault == "no image":
        image.write_text("not a picture")
    elif fault == "no mask":
        mask.unlink()
    elif fault == "mask alone":
        image.unlink()
    elif fault == "two of a stem":
        save(root / "images" / "04.bmp", noise(40, 36, 3))
    elif fault == "other size":
        swap(mask, noise(36, 40, below=2))
    elif fault == "channels":
        swap(image, noise(40, 36))
    elif fault == "nan":
        broken = np.full((40, 36, 3), np.nan, np.float32)
        image.unlink()
        np.save(image.with_suffix(".npy"), broken)
    elif fault == "inf tiff":
        for path in (root / "images").iterdir():
            swap(path, np.full((40, 36), np.inf if path.stem == "04" else 0.5, np.float32), ".tif")
    elif fault == "stray label":
        swap(mask, np.full((40, 36), 2, np.uint8))
    elif fault == "volume":
        mask.unlink()
        np.save(mask.with_suffix(".npy"), np.zeros((4, 40, 36), np.uint8))


FAULTS = [
    "truncated",
    "empty mask file",
    "no image",
    "no mask",
    "mask alone",
    "two of a stem",
    "other size",
    "channels",
    "nan",
    "inf tiff",
    "stray label",
    "volume",
]


@pytest.mark.parametrize("fault", [*FAULTS, "none"])
def test_the_check_stops_where_a_training_would_and_names_the_file(ten, fault):
    bad(ten, fault)
    errors = found(ten, ERROR)
    try:
        scanned(ten, splits={"train": 0.7, "val": 0.15, "test": 0.15})
    except UserError:
        assert errors and any("04" in error.text + " ".join(error.files) for error in errors), errors
    else:
        assert not errors


def test_a_bad_file_does_not_hide_the_others(ten):
    for fault in ("truncated", "stray label"):
        bad(ten, fault)
    (ten / "masks" / "07.png").write_bytes(b"x")
    (ten / "masks" / "08.png").unlink()
    assert len(found(ten, ERROR)) == 4
    assert len(surveyed(ten).images) == 8


def test_a_decoder_that_fails_in_its_own_way_is_a_fault_of_the_file(ten, monkeypatch):
    from unet.data_check import file_facts as facts

    def fail(*arguments):
        raise RuntimeError("odd\nbytes")

    monkeypatch.setattr(facts, "read_image", fail)
    one = read_facts(surveyed(ten).facts[0].item, "train", False)
    assert one.image is None and one.faults == (f"{one.name}: cannot be read (RuntimeError: odd bytes)",)


def test_what_the_training_asks_of_the_data(ten):
    data = surveyed(ten)
    asked = [
        finding.text for finding in collect_findings(data, TrainingRequirements(8, None, 64)) if finding.kind == ERROR
    ]
    assert len(asked) == 2 and "7 training images" in asked[0] and "less than 64 samples" in asked[1]
    assert [f for f in collect_findings(data, TrainingRequirements(8, 16, 32)) if f.kind == ERROR] == []


def test_masks_under_another_name_get_the_pattern(ten):
    for path in (ten / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_seg"))
    with pytest.raises(UserError, match="mask_stem=") as error:
        surveyed(ten)
    override = str(error.value).split("'")[1]
    pattern = parsed((override,))["mask_stem"]
    assert pattern == "{stem}_seg" and found(ten, ERROR, mask_stem=pattern) == []


def test_a_folder_too_small_to_divide_is_looked_at_all_the_same(tmp_path):
    folder_of(tmp_path, ["a", "b"])
    data = surveyed(tmp_path)
    assert [len(facts) for facts in data.splits.values()] == [2]
    only(tmp_path, ERROR, "cannot be divided")


# What would not


def test_equal_images_are_found_by_their_pixels(ten):
    scanned_split = {Path(one.name).stem: split for split, facts in surveyed(ten).splits.items() for one in facts}
    train, held_out = (
        next(stem for stem, split in scanned_split.items() if split == name) for name in ("train", "val")
    )
    pixels = np.asarray(Image.open(ten / "images" / f"{train}.png"))
    (ten / "images" / f"{held_out}.png").unlink()
    save(ten / "images" / f"{held_out}.bmp", pixels)  # another format, the same pixels
    warnings = found(ten, WARNING)
    assert ["several splits" in warnings[0].text, "different masks" in warnings[1].text] == [True, True]
    assert all(stem in warnings[0].files[0] for stem in (train, held_out))
    (pair,) = scanned(ten, splits={"train": 0.7, "val": 0.15, "test": 0.15}).in_two_splits
    assert {Path(item.name).stem for item in pair} == {train, held_out}


def test_masks_with_nothing_in_them_and_classes_that_are_absent(ten):
    masks_of(ten, lambda labels: 0 * labels)
    notes = {finding.text for finding in found(ten, NOTE)} | {finding.text for finding in found(ten, WARNING)}
    assert {"10 of 10 masks hold background alone", "train has no pixel of cell"} <= notes


def exif(path: Path, pixels: np.ndarray, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=tags)


def test_a_turned_photograph_is_told_apart_by_its_masks_size(ten):
    pixels = noise(36, 40, 3)  # stored lying; the tag says to turn it, and the mask is of the turned one
    exif(ten / "images" / "04.png", pixels, 6)
    exif(ten / "images" / "05.png", noise(40, 36, 3, seed=77), 3)  # upside down: sizes cannot tell
    finding = only(ten, ERROR, "EXIF", "fix=OUT")
    assert [Path(file).stem for file in finding.files] == ["04"]
    unclear = next(finding for finding in found(ten, WARNING) if "drawn on" in finding.text)
    assert [Path(file).stem for file in unclear.files] == ["05"]


def test_a_turned_tiff_is_turned_by_its_reader(ten):
    exif(ten / "images" / "04.tif", noise(36, 40, 3), 6)
    (ten / "images" / "04.png").unlink()
    assert found(ten, ERROR) == [] and found(ten, WARNING) == []


def test_bit_depths_that_differ(tmp_path):
    folder_of(tmp_path, TEN)
    for place, path in enumerate((tmp_path / "images").iterdir()):
        swap(path, noise(12, 10, dtype="uint16" if place else "uint8", seed=place))
    only(tmp_path, WARNING, "9 uint16, 1 uint8")


# Objects


def test_objects_by_hand():
    mask = np.zeros((30, 60), bool)
    mask[3:6, 5:55] = True  # a bar of 3 x 50
    mask[20:28, 10:18] = True  # a square of 8 x 8
    mask[15, 58] = mask[16, 59] = True  # two samples that touch at a corner
    shapes = measure_objects(mask)
    assert sorted(shapes.areas) == [2, 64, 150] and sorted(shapes.extents) == [2, 8, 50]
    widths = dict(zip(shapes.areas, shapes.widths, strict=True))
    assert widths[150] == pytest.approx(3, abs=0.2) and 4 <= widths[64] <= 8 and widths[2] <= 1.5


def test_specks_do_not_make_a_large_class_small():
    mask = np.zeros((80, 80), bool)
    mask[20:60, 20:60] = True
    mask[2:12:2, 2::4] = True  # a hundred single samples beside sixteen hundred
    shapes = measure_objects(mask)
    assert len(shapes) == 101 and shapes.extent == 40 and shapes.width > 15


def test_objects_of_lines_and_volumes_by_hand():
    line = measure_objects(np.array([0, 1, 1, 1, 0, 0, 1], bool))
    assert (line.areas, line.extents, line.widths) == ([3, 1], [3, 1], [3.0, 1.0])
    volume = np.zeros((9, 9, 40), bool)
    volume[3:6, 3:6] = True
    rod = measure_objects(volume)
    assert (rod.areas, rod.extents) == ([360], [40]) and rod.widths[0] == pytest.approx(3, abs=0.3)
    assert len(measure_objects(np.zeros((4, 4), bool))) == 0


def test_other_data_sets_and_dimensions_are_looked_at_as_well(tmp_path):
    for kind, below in (("images", 9), ("masks", 2)):
        (tmp_path / kind).mkdir()
        for stem in TEN:
            np.save(tmp_path / kind / f"{stem}.npy", noise(300, below=below, seed=int(stem)))
    data = surveyed(tmp_path)
    assert data.spatial_dims == 1 and [f for f in collect_findings(data) if f.kind == ERROR] == []
