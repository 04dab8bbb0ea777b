"""The corrected copy, and the command as its users meet it."""

import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import ROOT
from folders import noise, save, scanned
from hydra import compose, initialize_config_dir
from PIL import Image
from test_data_check import TEN, bad, exif, surveyed

from unet.commands.check import check
from unet.data_check.corrected_copy import write_corrected_copy
from unet.errors import UserError


def blobs(seed: int) -> np.ndarray:
    """Labels (40, 36): four blocks, some of them set."""
    return np.kron(noise(2, 2, below=2, seed=seed), np.ones((20, 18), np.uint8))


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Ten grey images, masks of 0/255 in every way they come, two of them JPEG, palette or colour."""
    root = tmp_path / "messy"
    for place, stem in enumerate(TEN):
        labels = 255 * blobs(place + 1)
        save(root / "images" / f"{stem}.png", noise(40, 36, seed=place))
        suffix = ".jpg" if place < 2 else ".png"
        save(root / "masks" / f"{stem}{suffix}", np.stack([labels] * 3, -1) if place in (3, 4) else labels)
    return root


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def labels_in(root: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in root.rglob("masks/*.png")}


def test_every_mask_becomes_the_labels_it_was_drawn_with(messy, tmp_path):
    before = snapshot(messy)
    written = write_corrected_copy(surveyed(messy, named=False), tmp_path / "out")
    assert snapshot(messy) == before
    found = labels_in(tmp_path / "out")
    assert sorted(found) == TEN and written.left_out == []
    for place, stem in enumerate(TEN):
        assert (found[stem] == blobs(place + 1)).all(), stem
    assert written.overrides == ("data.source.classes=[background,foreground]",)
    assert len(scanned(tmp_path / "out", splits={"train": 1}).samples["train"]) == 7


def test_splits_stay_what_they_were(messy, tmp_path):
    data = surveyed(messy, named=False)
    write_corrected_copy(data, tmp_path / "out")
    for split, facts in data.splits.items():
        copied = {path.stem for path in (tmp_path / "out" / split / "images").iterdir()}
        assert copied == {Path(one.name).stem for one in facts}


def test_what_cannot_be_used_is_left_out_and_named(messy, tmp_path):
    bad(messy, "truncated")
    (messy / "masks" / "05.png").unlink()
    save(messy / "masks" / "06.png", 255 * blobs(1)[:30])
    (messy / "images" / "07.png").unlink()
    np.save(messy / "images" / "07.npy", np.full((40, 36), np.inf, np.float32))
    save(messy / "images" / "08.png", np.asarray(Image.open(messy / "images" / "09.png")))
    written = write_corrected_copy(surveyed(messy, named=False), tmp_path / "out")
    assert len(written.left_out) == 5
    for stem in ("04", "05", "06", "07"):
        assert any(f"{stem}." in sentence for sentence in written.left_out), written.left_out
    assert any("equals" in sentence for sentence in written.left_out)
    assert len(labels_in(tmp_path / "out")) == 5


def test_a_turned_photograph_is_written_as_viewers_show_it(messy, tmp_path):
    lying = noise(36, 40, 3, seed=50)
    for stem in TEN:
        (messy / "images" / f"{stem}.png").unlink()
        exif(messy / "images" / f"{stem}.png", noise(36, 40, 3, seed=int(stem)) if stem != "02" else lying, 6)
    written = write_corrected_copy(surveyed(messy, named=False), tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("images/02.png")
    assert (np.asarray(Image.open(path)) == np.rot90(lying, -1)).all(), "orientation 6: a quarter turn clockwise"
    assert written.left_out == [] and surveyed(tmp_path / "out").images[0][1].size == (40, 36)


def test_numbered_objects_become_foreground(tmp_path):
    for stem in TEN:
        save(tmp_path / "in" / "images" / f"{stem}.png", noise(40, 36, seed=int(stem)))
        save(tmp_path / "in" / "masks" / f"{stem}.png", np.arange(40 * 36).reshape(40, 36).astype(np.uint16))
    write_corrected_copy(surveyed(tmp_path / "in"), tmp_path / "out")
    assert all(
        (labels != 0).sum() == 40 * 36 - 1 and labels.max() == 1 for labels in labels_in(tmp_path / "out").values()
    )


def test_ignored_pixels_stay_ignored_and_sequences_stay_arrays(tmp_path):
    for stem in TEN:
        for kind, line in (("images", noise(50, seed=int(stem))), ("masks", np.array([0, 1, 255] * 10 + [0] * 20))):
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "in" / kind / f"{stem}.npy", line.astype(np.uint8))
    written = write_corrected_copy(surveyed(tmp_path / "in"), tmp_path / "out")
    assert written.overrides[1] == "data.source.values={0: background, 1: cell, 255: ignore}"
    labels = np.load(next((tmp_path / "out").rglob("masks/03.npy")))
    assert labels.tolist() == [0, 1, 255] * 10 + [0] * 20


def test_nothing_is_written_over_and_nothing_is_left_of_a_failure(messy, tmp_path, monkeypatch):
    data = surveyed(messy, named=False)
    before = snapshot(messy)
    with pytest.raises(UserError, match="exists already"):
        write_corrected_copy(data, messy)
    from unet.data_check import corrected_copy as module

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "save_labels", full)
    with pytest.raises(UserError, match="No space left"):
        write_corrected_copy(data, tmp_path / "out")
    assert snapshot(tmp_path) == before


# The command


def checked(*overrides: str) -> bool:
    """What the command finds: whether a training can go on."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("check_data", list(overrides))
    return check(config, list(overrides))


def test_a_folder_with_nothing_said_gets_a_report_and_a_training_could_go_on(messy, capsys):
    for path in (messy / "masks").glob("*.jpg"):
        path.unlink()
        save(path.with_suffix(".png"), 255 * blobs(int(path.stem) + 1))
    given = ["data=folder", f"data.root={messy}", "data.batch_size=4"]
    assert checked(*given)
    shown = capsys.readouterr().out
    for words in ("10 items, 7 train, 2 val, 1 test", "PNG L", "foreground", "python train.py -m data=folder"):
        assert words in shown
    assert not checked(*given, "data.source.classes=[background,cell]"), "0/255 without values"
    assert "error: masks need 'data.source.values={0: background, 255: cell}'" in capsys.readouterr().out


def test_a_broken_folder_cannot_be_trained_on_and_its_copy_can(messy, tmp_path, capsys):
    bad(messy, "truncated")
    given = ["data=folder", f"data.root={messy}", "data.batch_size=4", "data.source.mask_stem='{stem}'"]
    assert not checked(*given)
    assert "images/04.png: cannot be read as an image" in capsys.readouterr().out
    assert checked(*given, f"fix={tmp_path / 'out'}")
    shown = capsys.readouterr().out
    copied = f"data.root={tmp_path / 'out'} 'data.source.classes=[background,foreground]'"
    assert "left out: " in shown and copied in shown and "mask_stem" not in shown


def test_another_data_set_is_checked_and_not_copied(stack, tmp_path, capsys):
    given = ["data=isbi2012", f"data.root={tmp_path / 'stack'}", "data.batch_size=4"]
    shutil.copytree(stack, tmp_path / "stack")
    assert checked(*given)
    (tmp_path / "stack" / "label" / "extra.png").write_bytes(b"")
    assert not checked(*given)
    shown = capsys.readouterr().out
    assert "extra.png: a mask without an image" in shown and "membrane" in shown
    with pytest.raises(UserError, match="only a data=folder can be written anew"):
        checked(*given, f"fix={tmp_path / 'out'}")


def test_data_without_files_is_checked_by_what_it_delivers(capsys):
    assert checked("data=blue_marble_lines")
    assert "in memory" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_s_exit_status_and_its_sentence(messy, tmp_path):
    command = [str(ROOT / "scripts" / "check_data.py"), "data=folder", "data.batch_size=4"]
    lossy = processes.run([*command, f"data.root={messy}"], tmp_path)
    assert lossy.returncode == 1 and lossy.stderr == "" and "error: masks are lossy" in lossy.stdout
    lost = processes.run([*command, "data.root=nowhere"], tmp_path)
    assert lost.returncode == 1 and "Traceback" not in lost.stderr
    assert lost.stderr.splitlines()[-1] == "error: nowhere/images: no such folder"
    assert [path.name for path in tmp_path.iterdir()] == ["messy"], "nothing is left behind"
