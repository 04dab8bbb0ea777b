"""The jobs of a search that are stopped because most others are better at the same epoch."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from unet.io.atomic import read_json, write_json
from unet.training.callbacks.pruning import VALIDATIONS, MedianPruning


def scores_of_jobs(folder: Path, scores: dict[str, list[float]]) -> None:
    """Write the best validation scores of a search's jobs, one per epoch."""
    write_json(folder / "sweep.json", {"search": True})
    for name, values in scores.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / VALIDATIONS, {str(epoch): value for epoch, value in enumerate(values)})


def validate(pruning: MedianPruning, epoch: int, score: float, ending: bool = False, least: int | None = None) -> bool:
    """Return whether a job is stopped after an epoch with a score."""
    trainer: Any = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        current_epoch=epoch,
        min_epochs=least,
        callback_metrics={"val/miou": torch.tensor(score)},
        should_stop=ending,
    )
    pruning.on_validation_end(trainer, Any)
    return bool(pruning.reason)


def test_a_job_below_the_median_of_five_others_is_stopped(tmp_path, capsys):
    scores_of_jobs(tmp_path, {name: [0.1, 0.2 + index / 10, 0.9] for index, name in enumerate("abcde")})
    (tmp_path / "new").mkdir()
    pruning = MedianPruning(tmp_path / "new")
    assert not validate(pruning, 0, 0.05), "the first validation stops none"
    assert not validate(pruning, 1, 0.39, ending=True), "the training ends anyway"
    assert not validate(pruning, 1, 0.39, least=3), "trainer.min_epochs"
    assert validate(pruning, 1, 0.3) and "0.3900 is below 0.4000, the median of 5 other jobs" in pruning.reason
    assert "stopped after epoch 2" in capsys.readouterr().out
    pruning.reason = ""
    assert not validate(pruning, 1, 0.4), "the median itself"
    assert not validate(pruning, 3, 0.0), "no other job has reached this epoch"
    assert read_json(tmp_path / "new" / VALIDATIONS) == pytest.approx({"0": 0.05, "1": 0.4, "3": 0.4})
    (tmp_path / "e" / VALIDATIONS).unlink()
    (tmp_path / "new" / VALIDATIONS).unlink()
    fewer = MedianPruning(tmp_path / "new")
    assert not validate(fewer, 0, 0.1) and not validate(fewer, 1, 0.1), "four others are too few"
