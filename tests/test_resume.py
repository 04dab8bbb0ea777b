"""Resuming: the same command finds its run by its configuration, resumes it, or reports that it is finished."""

import json
import os
import shlex
import signal
import time
from pathlib import Path

import processes
import pytest
import torch
from conftest import ROOT, config
from omegaconf import OmegaConf
from test_command_line import interrupt, run, start
from test_segmenter import Evil
from test_training import assert_same, weights

from unet.errors import UserError
from unet.io.run_folder import ensure_new_or_resuming
from unet.runs.resume import check_same_config, resume_hint
from unet.runs.run import execute, last_checkpoint, run_or_resume
from unet.runs.run_names import run_dir, sweep_name
from unet.training.train import train

LONGER = ("trainer.max_epochs=12", "optim.lr=0.001", "resume=auto")


def folder_of(*overrides: str) -> str:
    return run_dir(None, "outputs/2026-01-01", "auto", overrides, _root_=config(*overrides))


@pytest.mark.parametrize(
    "override", ["diagnostics=false", "num_logged_images=0", "trainer.log_every_n_steps=1", "subprocess_per_job=false"]
)
def test_a_key_that_only_logs_or_launches_makes_no_other_run(tmp_path: Path, override: str):
    assert folder_of("model.down=avg", override) == folder_of("model.down=avg")
    OmegaConf.save(config(), tmp_path / "config.yaml")
    check_same_config(tmp_path, config(override))
    assert sweep_name(["model.down=max,avg", override]) == "model.down-max-avg"


def test_the_folder_is_named_by_the_overrides_and_a_hash_of_the_configuration():
    name = folder_of("model.down=avg", "resume=auto", "threads=1")
    assert name.startswith("outputs/model.down-avg_") and "resume" not in name
    assert name == folder_of("model.down=avg", "resume=auto")
    assert name.rpartition("_")[2] == folder_of("model.down=avg", "seed=0").rpartition("_")[2], "the same configuration"
    assert name != folder_of("model.down=avg", "optim.lr=0.5") and name != folder_of("model.down=avg", "seed=1")
    assert folder_of("++data.source.values={0: a, 255: b, x: b}").startswith("outputs/"), "keys of several types"


def test_hydra_run_dir_has_to_hold_the_same_run(tmp_path: Path):
    OmegaConf.save(config("optim.lr=0.5", "threads=1"), tmp_path / "config.yaml")
    check_same_config(tmp_path, config("optim.lr=0.5", "resume=auto"))
    with pytest.raises(UserError, match=r"holds a run with optim.lr=0.5, this one has optim.lr=0.001"):
        check_same_config(tmp_path, config())
    with pytest.raises(UserError, match="resume=yes: expected auto or null"):
        run_or_resume(train, config("resume=yes"), tmp_path, [])


def test_a_folder_without_a_checkpoint_may_be_used_again(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    ensure_new_or_resuming(tmp_path, None)
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="already holds a run"):
        ensure_new_or_resuming(tmp_path, None)


@pytest.mark.filterwarnings("ignore:the bottleneck is", "ignore:.*torch.jit.*", "ignore:.*tree.*:FutureWarning")
def test_a_checkpoint_with_code_is_not_resumed(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"description": {}, "state_dict": {}, "loops": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="could run code and are not loaded"):
        train(composed(f"ckpt_path={tmp_path / 'last.ckpt'}"), tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_a_run_is_not_resumed_with_another_network(tmp_path: Path):
    OmegaConf.save(config(), tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.touch()
    with pytest.raises(UserError, match=r"its run has model.width=16, this one has model.width=8; resume with"):
        execute(train, config(f"ckpt_path={last}", "model.width=8"), tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.yaml"]


@pytest.mark.parametrize("program", ["python train.py", "unet-lab train"])
def test_the_status_of_a_run_and_the_command_to_resume_have_the_name_of_the_program(tmp_path, monkeypatch, program):
    monkeypatch.setattr("sys.argv", [program.split()[0]])
    execute(lambda config, folder: {"best/val_miou": 0.5}, config(), tmp_path, ["model.down=avg", "seed=1"])
    status = json.loads((tmp_path / "status.json").read_text())
    words = [*program.split(), "model.down=avg", "seed=1"]
    assert status == {"state": "done", "reason": "", "command": words}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert resume_hint(tmp_path, config(), ["seed=1"]).startswith(f"to resume: {program} seed=1 ckpt_path=")


@pytest.mark.slow
def test_a_stopped_run_prints_the_command_that_resumes_it(stack, tmp_path):
    def stop(epoch: int, *overrides: str) -> list[str]:
        process = start(stack, tmp_path, epoch, *LONGER[:-1], "trainer.max_epochs=40", *overrides)
        os.kill(process.pid, signal.SIGTERM)
        stderr = process.communicate(timeout=60)[1]
        return shlex.split(stderr.strip().splitlines()[-1].partition(": python train.py ")[2])

    words = stop(2)
    assert processes.run([str(ROOT / "train.py"), *words], tmp_path).returncode == 0
    stop(2, "hydra.run.dir=mine")
    words = stop(20, "ckpt_path=mine/checkpoints/last.ckpt", "resume=auto")
    assert f"hydra.run.dir={tmp_path / 'mine'}" in words and "resume=auto" in words
    again = processes.run([str(ROOT / "train.py"), *words], tmp_path)
    assert again.returncode == 0 and f"resuming from {tmp_path / 'mine'}" in again.stdout, again.stderr


@pytest.mark.slow
def test_the_same_command_resumes_after_sigterm_and_then_reports_that_the_run_is_finished(stack, tmp_path):
    assert run(stack, tmp_path, *LONGER[:-1], "hydra.run.dir=uninterrupted").returncode == 0
    process = start(stack, tmp_path, 2, *LONGER)
    time.sleep(0.05)
    for _ in range(2):  # as schedulers do
        os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    (folder,) = (tmp_path / "outputs").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert 8 <= torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 48
    again = run(stack, tmp_path, *reversed(LONGER))
    assert again.returncode == 0 and "resuming from" in again.stdout and "epoch 1/" not in again.stdout
    assert_same(weights(folder), weights(tmp_path / "uninterrupted"))
    third = run(stack, tmp_path, *LONGER)
    assert third.returncode == 0 and "this run is finished, validation mIoU" in third.stdout
    assert third.stdout.count("\n") == 1
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [folder.name]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(stack, tmp_path):
    longer = (*LONGER, "hydra.run.dir=resumed", "data.num_workers=0")
    assert interrupt(stack, tmp_path, signal.SIGKILL, *longer) == -signal.SIGKILL
    for path in (tmp_path / "resumed" / "checkpoints").iterdir():
        path.unlink()
    again = run(stack, tmp_path, *longer)
    assert again.returncode == 0 and "epoch 1/12" in again.stdout
    assert len(list((tmp_path / "resumed").glob("events*"))) == 3
    other = run(stack, tmp_path, *longer, "seed=1")
    assert other.returncode == 1 and "holds a run with seed=0, this one has seed=1" in other.stderr
