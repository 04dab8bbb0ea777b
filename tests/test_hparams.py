"""Read the columns of TensorBoard's HParams tab as TensorBoard does."""

from pathlib import Path

import numpy as np
from sweeps import leave_run, sweep_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from unet.report import analyze
from unet.report.hparams import write_hparams_summary


def columns(folder: Path) -> tuple[list[str], list[str]]:
    (path,) = folder.glob("events.out.tfevents.*")
    events = EventAccumulator(str(path)).Reload()
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    return [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]


def test_the_tab_has_the_factors_and_the_compared_metric_first(tmp_path: Path):
    arms = [{"model.down": "max", "model.width": 8}, {"model.down": ["max", "strided"], "model.width": 8}]
    sweep_of(tmp_path, arms, np.array([[0.5, 0.6], [0.6, 0.7]]))
    for _ in range(2):  # the second replaces the first
        write_hparams_summary(analyze(tmp_path))
        settings, scores = columns(tmp_path)
        assert settings == ["model.down", "seed"]
        assert scores[0] == "final/miou" and "final/parameters" in scores and len(set(scores)) == len(scores)


def test_a_sweep_without_finished_runs_has_no_columns(tmp_path: Path):
    leave_run(tmp_path, {"model.down": "max", "seed": 0}, None, "failed", "loss: nan")
    write_hparams_summary(analyze(tmp_path))
    assert not list(tmp_path.glob("events.out.tfevents.*"))
