"""Loading of checkpoints: the logits of the training, no execution of code, clear errors."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from unet import load
from unet.errors import UserError
from unet.inference.segmenter import Segmenter

DESCRIPTION = {
    "model": {"in_channels": 2, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": 2},
    "classes": ["sky", "sea", "land"],
    "colors": [[0, 0, 0], [0, 0, 255], [0, 255, 0]],
    "mean": [10.0, 20.0],
    "std": [2.0, 4.0],
    "log_weights": [0.0, 1.0, -1.0],
}


def save_checkpoint(path: Path, **content: object) -> Path:
    torch.manual_seed(0)
    torch.save({"description": DESCRIPTION, "state_dict": Segmenter(DESCRIPTION).state_dict(), **content}, path)
    return path


def test_a_loaded_network_normalizes_the_image_and_adjusts_the_logits(tmp_path: Path):
    model = load(save_checkpoint(tmp_path / "best.ckpt"))
    image = torch.randint(0, 255, (1, 2, 33, 35), dtype=torch.uint8)
    logits = model.net((image - torch.tensor([10.0, 20]).view(1, 2, 1, 1)) / torch.tensor([2.0, 4]).view(1, 2, 1, 1))
    torch.testing.assert_close(model(image), logits - torch.tensor([0.0, 1, -1]).view(1, 3, 1, 1))
    assert not model.training and model.classes == DESCRIPTION["classes"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"description": Evil()}, "zip.ckpt")
    Path("pickle.ckpt").write_bytes(pickle.dumps(Evil()))
    for path in ("zip.ckpt", "pickle.ckpt"):
        with pytest.raises(UserError, match="could run code and are not loaded"):
            load(path)
    assert not Path("ran").exists()


def test_an_invalid_checkpoint_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    content = save_checkpoint(Path("best.ckpt")).read_bytes()
    Path("cut.ckpt").write_bytes(content[: len(content) // 2])
    Path("bytes.ckpt").write_bytes(b"")
    Path("image.ckpt").write_bytes(b"\x89PNG")
    torch.save([1, 2], "list.ckpt")
    torch.save({"state_dict": {}, "description": {"model": {}}}, "empty.ckpt")
    save_checkpoint(Path("weights.ckpt"), state_dict={"net.x": torch.zeros(1)})
    messages = {"missing.ckpt": "No such file", "list.ckpt": "not a checkpoint of this project", ".": "Is a dir"}
    messages |= dict.fromkeys(("cut.ckpt", "bytes.ckpt", "image.ckpt"), "damaged, not a checkpoint")
    messages |= dict.fromkeys(("empty.ckpt", "weights.ckpt"), "do not fit its own description")
    for path, message in messages.items():
        with pytest.raises(UserError, match=message) as error:
            load(path)
        assert "\n" not in str(error.value)
