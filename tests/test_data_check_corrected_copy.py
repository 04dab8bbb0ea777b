"""Tests of the corrected copy and of the command."""

import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import ROOT
from folders import noise, save, scanned
from hydra import compose, initialize_config_dir
from PIL import Image
from test_data_check import TEN, exif, survey_folder, truncate

from unet.commands.check import check
from unet.data_check.corrected_copy import write_corrected_copy
from unet.errors import UserError


def blobs(seed: int) -> np.ndarray:
    """Return labels (40, 36) of four random blocks."""
    return np.kron(noise(2, 2, below=2, seed=seed), np.ones((20, 18), np.uint8))


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Ten grey images with masks of 0 and 255, two of them JPEG and two RGB."""
    root = tmp_path / "messy"
    for index, stem in enumerate(TEN):
        labels = 255 * blobs(index + 1)
        save(root / "images" / f"{stem}.png", noise(40, 36, seed=index))
        suffix = ".jpg" if index < 2 else ".png"
        save(root / "masks" / f"{stem}{suffix}", np.stack([labels] * 3, -1) if index in (3, 4) else labels)
    return root


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def labels_in(root: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in root.rglob("masks/*.png")}


def test_every_mask_is_written_as_class_indices(messy, tmp_path):
    before = snapshot(messy)
    copy = write_corrected_copy(survey_folder(messy, has_classes=False), tmp_path / "out")
    assert snapshot(messy) == before
    labels = labels_in(tmp_path / "out")
    assert sorted(labels) == TEN and copy.exclusions == []
    for index, stem in enumerate(TEN):
        assert (labels[stem] == blobs(index + 1)).all(), stem
    assert copy.overrides == ("data.source.classes=[background,foreground]",)
    assert len(scanned(tmp_path / "out", splits={"train": 1}).samples["train"]) == 7


def test_splits_do_not_change(messy, tmp_path):
    data = survey_folder(messy, has_classes=False)
    write_corrected_copy(data, tmp_path / "out")
    for split, facts in data.splits.items():
        copied = {path.stem for path in (tmp_path / "out" / split / "images").iterdir()}
        assert copied == {Path(item.name).stem for item in facts}


def test_unusable_items_are_excluded_and_named(messy, tmp_path):
    truncate(messy / "images" / "04.png")
    (messy / "masks" / "05.png").unlink()
    save(messy / "masks" / "06.png", 255 * blobs(1)[:30])
    (messy / "images" / "07.png").unlink()
    np.save(messy / "images" / "07.npy", np.full((40, 36), np.inf, np.float32))
    save(messy / "images" / "08.png", np.asarray(Image.open(messy / "images" / "09.png")))
    copy = write_corrected_copy(survey_folder(messy, has_classes=False), tmp_path / "out")
    assert len(copy.exclusions) == 5
    for stem in ("04", "05", "06", "07"):
        assert any(f"{stem}." in message for message in copy.exclusions), copy.exclusions
    assert any("equals" in message for message in copy.exclusions)
    assert len(labels_in(tmp_path / "out")) == 5


def test_an_image_with_exif_rotation_is_written_upright(messy, tmp_path):
    sideways = noise(36, 40, 3, seed=50)
    for stem in TEN:
        (messy / "images" / f"{stem}.png").unlink()
        exif(messy / "images" / f"{stem}.png", noise(36, 40, 3, seed=int(stem)) if stem != "02" else sideways, 6)
    copy = write_corrected_copy(survey_folder(messy, has_classes=False), tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("images/02.png")
    assert (np.asarray(Image.open(path)) == np.rot90(sideways, -1)).all(), "orientation 6: a quarter turn clockwise"
    assert copy.exclusions == [] and survey_folder(tmp_path / "out").images[0][1].size == (40, 36)


def test_instance_ids_become_foreground(tmp_path):
    for stem in TEN:
        save(tmp_path / "in" / "images" / f"{stem}.png", noise(40, 36, seed=int(stem)))
        save(tmp_path / "in" / "masks" / f"{stem}.png", np.arange(40 * 36).reshape(40, 36).astype(np.uint16))
    write_corrected_copy(survey_folder(tmp_path / "in"), tmp_path / "out")
    assert all(
        (labels != 0).sum() == 40 * 36 - 1 and labels.max() == 1 for labels in labels_in(tmp_path / "out").values()
    )


def test_ignored_pixels_stay_ignored_and_sequences_stay_arrays(tmp_path):
    for stem in TEN:
        for kind, line in (("images", noise(50, seed=int(stem))), ("masks", np.array([0, 1, 255] * 10 + [0] * 20))):
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "in" / kind / f"{stem}.npy", line.astype(np.uint8))
    copy = write_corrected_copy(survey_folder(tmp_path / "in"), tmp_path / "out")
    assert copy.overrides[1] == "data.source.values={0: background, 1: cell, 255: ignore}"
    labels = np.load(next((tmp_path / "out").rglob("masks/03.npy")))
    assert labels.tolist() == [0, 1, 255] * 10 + [0] * 20


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(messy, tmp_path, monkeypatch):
    data = survey_folder(messy, has_classes=False)
    before = snapshot(messy)
    with pytest.raises(UserError, match="exists; choose"):
        write_corrected_copy(data, messy)

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("unet.data_check.corrected_copy.class_labels", full)
    with pytest.raises(UserError, match="No space left"):
        write_corrected_copy(data, tmp_path / "out")
    assert snapshot(tmp_path) == before


def run_check(*overrides: str) -> bool:
    """Run the command and return whether a training could start."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("check_data", list(overrides))
    return check(config, list(overrides))


def test_a_folder_without_class_names_gets_a_report(messy, capsys):
    for path in (messy / "masks").glob("*.jpg"):
        path.unlink()
        save(path.with_suffix(".png"), 255 * blobs(int(path.stem) + 1))
    overrides = ["data=folder", f"data.root={messy}", "data.batch_size=4"]
    assert run_check(*overrides)
    output = capsys.readouterr().out
    for words in ("10 items, 7 train, 2 val, 1 test", "PNG L", "foreground", "python train.py -m data=folder"):
        assert words in output
    assert not run_check(*overrides, "data.source.classes=[background,cell]"), "0/255 without values"
    assert "error: masks need 'data.source.values={0: background, 255: cell}'" in capsys.readouterr().out


def test_an_invalid_folder_fails_the_check_and_its_copy_passes(messy, tmp_path, capsys):
    truncate(messy / "images" / "04.png")
    overrides = ["data=folder", f"data.root={messy}", "data.batch_size=4", "data.source.mask='masks/{id}.*'"]
    assert not run_check(*overrides)
    assert "images/04.png: cannot be read as an image" in capsys.readouterr().out
    assert run_check(*overrides, f"fix={tmp_path / 'out'}")
    output = capsys.readouterr().out
    copied = f"data.root={tmp_path / 'out'} 'data.source.classes=[background,foreground]'"
    assert "left out: " in output and copied in output and "data.source.mask" not in output


def test_other_data_sets_are_checked_but_not_copied(stack, tmp_path, capsys):
    overrides = ["data=isbi2012", f"data.root={tmp_path / 'stack'}", "data.batch_size=4"]
    shutil.copytree(stack, tmp_path / "stack")
    assert run_check(*overrides)
    (tmp_path / "stack" / "label" / "extra.png").write_bytes(b"")
    assert not run_check(*overrides)
    output = capsys.readouterr().out
    assert "extra.png: a mask without an image" in output and "membrane" in output
    with pytest.raises(UserError, match="only data=folder can be corrected"):
        run_check(*overrides, f"fix={tmp_path / 'out'}")


def test_data_in_memory_is_checked(capsys):
    assert run_check("data=blue_marble_lines")
    assert "in memory" in capsys.readouterr().out


@pytest.mark.slow
def test_exit_status_and_message_of_the_command(messy, tmp_path):
    command = [str(ROOT / "scripts" / "check_data.py"), "data=folder", "data.batch_size=4"]
    lossy = processes.run([*command, f"data.root={messy}"], tmp_path)
    assert lossy.returncode == 1 and lossy.stderr == "" and "error: masks are lossy" in lossy.stdout
    missing = processes.run([*command, "data.root=nowhere"], tmp_path)
    assert missing.returncode == 1 and "Traceback" not in missing.stderr
    assert missing.stderr.splitlines()[-1] == "error: nowhere: no such folder; set data.root=..."
    assert [path.name for path in tmp_path.iterdir()] == ["messy"], "nothing is left behind"
