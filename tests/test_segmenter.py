"""A checkpoint loaded for use: the numbers of the training, and nothing that runs code."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from unet import load
from unet.errors import UserError
from unet.inference.segmenter import Segmenter
from unet.network.normalization import adjust_logits

DESCRIPTION = {
    "model": {"in_channels": 2, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": 2},
    "classes": ["sky", "sea", "land"],
    "colors": [[0, 0, 0], [0, 0, 255], [0, 255, 0]],
    "mean": [10.0, 20.0],
    "std": [2.0, 4.0],
    "log_weights": [0.0, 1.0, -1.0],
}


def saved(folder: Path, **other: object) -> Path:
    torch.manual_seed(0)
    path = folder / "best.ckpt"
    torch.save({"description": DESCRIPTION, "state_dict": Segmenter(DESCRIPTION).state_dict(), **other}, path)
    return path


def test_a_loaded_network_is_the_one_that_was_saved(tmp_path: Path):
    found = load(saved(tmp_path))
    image = torch.randint(0, 255, (1, 2, 33, 35), dtype=torch.uint8)
    plain = found.net((image - torch.tensor([10.0, 20]).view(1, 2, 1, 1)) / torch.tensor([2.0, 4]).view(1, 2, 1, 1))
    torch.testing.assert_close(found(image), plain - torch.tensor([0.0, 1, -1]).view(1, 3, 1, 1))
    assert not found.training and found.classes == DESCRIPTION["classes"]


def test_log_weights_are_taken_out_class_by_class():
    logits = torch.zeros(1, 3, 5)
    assert adjust_logits(logits, torch.tensor([0.0, 1, -1])).argmax(1).tolist() == [[2] * 5]


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_checkpoint_with_code_in_it_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("zip.ckpt", lambda path: torch.save({"description": Evil()}, path)),
        ("bare.ckpt", lambda path: path.write_bytes(pickle.dumps(Evil()))),
    ):
        write(tmp_path / name)
        with pytest.raises(UserError, match=r"could run code and is not loaded"):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    cases = {"No such file": tmp_path / "gone.ckpt"}
    for said, content in {"damaged": whole[: len(whole) // 2], "damaged,": b"", "damaged, no": b"\x89PNG"}.items():
        cases[said] = tmp_path / f"{len(cases)}.ckpt"
        cases[said].write_bytes(content)
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {}, "description": {"model": {}}}, tmp_path / "empty.ckpt")
    cases |= {"not a checkpoint of this project": tmp_path / "list.ckpt", "do not fit": tmp_path / "empty.ckpt"}
    cases |= {"do not fit its own": saved(tmp_path, state_dict={"net.x": torch.zeros(1)}), "Is a dir": tmp_path}
    for said, file in cases.items():
        with pytest.raises(UserError, match=said) as error:
            load(file)
        assert "\n" not in str(error.value)
