"""``scripts/curve.py``: validation scores against seconds of training."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import interrupt

from unet.errors import Interrupted, UserError
from unet.report.score_curve import Validation, find_runs, format_curve, read_curve
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is", "ignore:.*torch.jit.*:DeprecationWarning")


def test_the_curve_of_a_resumed_run_has_its_scores_and_increasing_seconds(composed, tmp_path, monkeypatch):
    interrupt(monkeypatch, step=6)
    with pytest.raises(Interrupted):
        train(composed("trainer.max_epochs=3"), tmp_path)
    monkeypatch.undo()
    last = tmp_path / "checkpoints" / "last.ckpt"
    metrics = train(composed("trainer.max_epochs=3", f"ckpt_path={last}"), tmp_path)
    curve = read_curve(tmp_path)
    scores = EventAccumulator(str(tmp_path)).Reload().Scalars("val/miou")
    assert [v.score for v in curve] == [event.value for event in scores]
    assert [v.step for v in curve] == [4, 8, 12] and metrics["steps"] == 12
    seconds = [v.seconds for v in curve]
    assert seconds == sorted(seconds) and seconds[0] > 0 and seconds[-1] <= metrics["time/train_seconds"] + 1e-3
    assert metrics["best/val_miou"] == pytest.approx(max(v.score for v in curve), abs=1e-6)


def test_the_target_is_reached_at_the_first_validation_with_that_score():
    curve = [Validation(10, 2.0, 0.5), Validation(20, 4.0, 0.8), Validation(30, 6.0, 0.7)]
    assert "0.7 is reached after 4.0 s, 20 steps; best 0.8000" in format_curve(Path("run"), curve, 0.7)
    assert "0.9 is reached never; best 0.8000" in format_curve(Path("run"), curve, 0.9)
    assert "reached" not in format_curve(Path("run"), curve, None)


def test_runs_are_a_folder_or_the_folders_in_it(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.out.tfevents.0").touch()
    (tmp_path / "other").mkdir()
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b"] and find_runs(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(UserError, match="other: no event files in it; expected the folder of a run"):
        find_runs(tmp_path / "other")
    with pytest.raises(UserError, match="none: no such folder; expected"):
        find_runs(tmp_path / "none")
    with pytest.raises(UserError, match=r"a: its event files have no time/train_seconds and val/miou"):
        read_curve(tmp_path / "a")
