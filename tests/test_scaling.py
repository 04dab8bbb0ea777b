"""Several processes: two that train one network, parallel jobs of a sweep, jobs of a cluster."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import IMAGES, config
from lightning.fabric.utilities.rank_zero import _get_rank
from omegaconf import OmegaConf
from test_command_line import arguments, environment, run, start

from unet.errors import UserError
from unet.runs.run import RANKS, is_follower, require_common_folder
from unet.runs.sweep import require_one_device

pytestmark = pytest.mark.slow
TWO_PROCESSES = ("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=2", "model.norm=group")


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_two_processes_train_like_one_into_one_folder(stack, tmp_path):
    # The Dice loss of two half batches is not that of the batch; the mean of their cross-entropies is.
    longer = ("trainer.max_epochs=6", "model.norm=group", "model.dropout=0", "loss.name=cross_entropy")
    assert run(stack, tmp_path, *longer, "hydra.run.dir=runs/single", "data.batch_size=4").returncode == 0
    result = run(stack, tmp_path, *longer, *TWO_PROCESSES, "hydra.run.dir=runs/ddp")
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr and result.stdout.count("results in") == 1
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["ddp", "single"]
    assert not (tmp_path / "outputs").exists()
    single, ddp = metrics(tmp_path / "runs" / "single"), metrics(tmp_path / "runs" / "ddp")
    assert ddp["steps"] == single["steps"]
    assert ddp["test/loss"] == pytest.approx(single["test/loss"], rel=1e-3)  # Muon rounds to bfloat16
    assert ddp["test/miou"] == pytest.approx(single["test/miou"], abs=0.01)


def test_only_the_first_of_two_processes_diagnoses_writes_and_prints(stack, tmp_path):
    overrides = (*TWO_PROCESSES, "trainer.max_epochs=1", "hydra.run.dir=two", "diagnostics=true", "model.depth=0")
    result = run(stack, tmp_path, *overrides, *IMAGES)
    assert result.returncode == 0, result.stderr
    lines = ("U-Net", "parameters, ", "epoch 1/1", "test metrics of ", "shift skipped", "results in")
    assert {line: result.stdout.count(line) for line in lines} == dict.fromkeys(lines, 1)
    assert {"metrics.json", "confusions.npz", "predictions.png"} <= {path.name for path in (tmp_path / "two").iterdir()}
    assert "test/boundary/iou" in metrics(tmp_path / "two")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(stack, tmp_path, rank):
    process = start(stack, tmp_path, 2, *TWO_PROCESSES, "hydra.run.dir=two", "trainer.max_epochs=4000")
    os.kill(psutil.Process(process.pid).children()[0].pid if rank else process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads((tmp_path / "two" / "status.json").read_text())["state"] == "interrupted"
    last = tmp_path / "two" / "checkpoints" / "last.ckpt"
    assert 8 <= torch.load(last, weights_only=True)["global_step"] < 4000


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"},
        {"LOCAL_RANK": "0", "RANK": "2"},
        {"LOCAL_RANK": "1", "RANK": "0"},
        {"JSM_NAMESPACE_RANK": "1"},
    ],
)
def test_the_first_process_is_the_one_that_lightning_takes_for_it(monkeypatch, variables):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_follower() == bool(_get_rank())


def test_a_second_node_keeps_no_record(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    assert is_follower()


def test_tasks_of_srun_without_a_common_folder_are_refused(monkeypatch):
    monkeypatch.setattr("unet.runs.run.HydraConfig.get", lambda: OmegaConf.create({"overrides": {"hydra": []}}))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    require_common_folder(config("resume=auto"))
    with pytest.raises(UserError, match=r"2 processes train together.*add resume=auto or hydra.run.dir"):
        require_common_folder(config())


@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=lambda it: it[0])
def test_a_launcher_runs_the_jobs_of_a_sweep(stack, tmp_path, launcher):
    name, *options = launcher
    pytest.importorskip(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher")
    jobs = ("-m", "hydra.sweep.dir=sweep", f"hydra/launcher={name}", *options, "seed=0,1", "trainer.max_epochs=1")
    # Not by processes.run, so that the exit of Python itself is part of the test.
    command = [sys.executable, *arguments(stack, *jobs, "threads=null")]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / "sweep").glob("*/status.json")]
    assert states == ["done", "done"]
    assert {metrics(path.parent)["seed"] for path in (tmp_path / "sweep").glob("*/metrics.json")} == {0, 1}


@pytest.mark.parametrize("override", ["trainer.devices=2", "trainer.devices=[0,1]", "trainer.devices=-1"])
def test_several_devices_in_a_job_of_a_sweep_are_refused_with_advice(composed, override):
    for single in ("trainer.devices=auto", "trainer.devices=1", "trainer.devices=[3]"):
        require_one_device(composed(single))
    with pytest.raises(UserError, match=r"run several jobs at once instead \(hydra/launcher=joblib or slurm\)"):
        require_one_device(composed(override))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=1,2"], "error: trainer.devices=2"),
        (["seed=0,1", "trainer.num_nodes=2"], "error: trainer.devices=auto, trainer.num_nodes=2"),
    ],
)
def test_a_refused_sweep_writes_no_jobs(stack, tmp_path, overrides, message):
    result = run(stack, tmp_path, "-m", "hydra.sweep.dir=sweep", *overrides)
    assert result.returncode == 1 and message in result.stderr
    assert not list(tmp_path.glob("sweep/*/status.json"))


def test_the_cluster_config_composes(stack, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    result = run(stack, tmp_path, "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "--cfg=hydra")
    assert "gpus_per_node: 1" in result.stdout and "partition: gpu" in result.stdout


@pytest.mark.parametrize("per_job", [True, False])
def test_ending_a_sweep_ends_its_launchers_processes(stack, tmp_path, per_job):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ("-m", "hydra.sweep.dir=sweep", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1")
    command = [sys.executable, *arguments(stack, *jobs, f"subprocess_per_job={per_job}", "trainer.max_epochs=4000")]
    sweep = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert sweep.stdout is not None
    while list(tmp_path.glob("sweep/*/checkpoints/last.ckpt")) == []:
        assert sweep.stdout.readline()
    os.kill(sweep.pid, signal.SIGTERM)  # only the first process, as in a shutdown
    sweep.communicate(timeout=60)  # returns when no process has its output open
    assert sweep.returncode == 143
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / "sweep").glob("*/status.json")]
    assert "done" not in states and len(states) == 2
    # The launcher kills its own processes; those of the jobs save and end.
    assert ("interrupted" in states) == per_job
