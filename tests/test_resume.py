"""The same command again: it finds its run by its configuration, goes on, or says that it is finished."""

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
from test_command_line import assert_same, interrupted, refused, run, started
from test_segmenter import Evil

from unet.errors import UserError
from unet.io.run_folder import ensure_new_or_resuming
from unet.runs.resume import check_same_config
from unet.runs.run import execute, last_checkpoint, run_or_resume
from unet.runs.run_names import run_dir, sweep_name
from unet.training.train import train

LONGER = ("trainer.max_epochs=12", "optim.lr=0.001", "num_logged_images=0", "feature_maps=0", "resume=auto")


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


def test_the_folder_is_named_by_what_was_chosen_and_a_hash_of_all_there_is():
    name = folder_of("model.down=avg", "resume=auto", "threads=1")
    assert name.startswith("outputs/model.down-avg_") and "resume" not in name
    assert name == folder_of("model.down=avg", "resume=auto"), "how a run is made does not count"
    assert name.rpartition("_")[2] == folder_of("model.down=avg", "seed=0").rpartition("_")[2], "nor how it is written"
    assert name != folder_of("model.down=avg", "optim.lr=0.5") and name != folder_of("model.down=avg", "seed=1")


def test_a_folder_chosen_by_hand_has_to_hold_the_same_run(tmp_path: Path):
    OmegaConf.save(config("optim.lr=0.5", "threads=1"), tmp_path / "config.yaml")
    check_same_config(tmp_path, config("optim.lr=0.5", "resume=auto"))
    with pytest.raises(UserError, match=r"holds a run with optim.lr=0.5, this one has optim.lr=0.001"):
        check_same_config(tmp_path, config())
    with pytest.raises(UserError, match="resume=yes: expected auto or null"):
        run_or_resume(train, config("resume=yes"), tmp_path, [])


def test_a_folder_without_a_checkpoint_may_be_begun_again(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    ensure_new_or_resuming(tmp_path, None)
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="already holds a run"):
        ensure_new_or_resuming(tmp_path, None)


@pytest.mark.filterwarnings("ignore:the bottleneck is", "ignore:.*torch.jit.*", "ignore:.*tree.*:FutureWarning")
def test_a_checkpoint_to_go_on_from_that_holds_code_is_refused_unrun(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"description": {}, "state_dict": {}, "loops": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="could run code and is not loaded"):
        train(composed(f"ckpt_path={tmp_path / 'last.ckpt'}"), tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_a_run_is_not_gone_on_with_by_another_network(tmp_path: Path):
    """Nothing of the run is touched."""
    OmegaConf.save(config(), tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"a run with model.width=16, this one has model.width=8, and a run goes on"):
        execute(train, config(f"ckpt_path={last}", "model.width=8"), tmp_path, [])
    assert before == {path: path.read_bytes() for path in before} and not (tmp_path / "status.json").exists()


def test_a_run_keeps_its_command_in_its_status(tmp_path: Path):
    execute(lambda config, folder: {"best/val_miou": 0.5}, config(), tmp_path, ["model.down=avg", "seed=1"])
    status = json.loads((tmp_path / "status.json").read_text())
    words = ["python", "train.py", "model.down=avg", "seed=1"]
    assert status == {"state": "done", "reason": "", "command": words}
    assert not (tmp_path / "config.yaml").read_text().startswith("#")


def test_values_of_several_kinds_have_a_name():
    assert folder_of("++data.source.values={0: a, 255: b, x: b}").startswith("outputs/")


@pytest.mark.slow
def test_the_sentence_that_a_stopped_run_ends_with_goes_on(stack, tmp_path):
    """In a folder that was named for it, and in one that was chosen."""

    def stopped(epoch: int, *overrides: str) -> list[str]:
        process = started(stack, tmp_path, epoch, *LONGER[:-1], "trainer.max_epochs=40", *overrides)
        os.kill(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        return shlex.split(said.strip().splitlines()[-1].partition(": python train.py ")[2])

    words = stopped(2)
    assert processes.run([str(ROOT / "train.py"), *words], tmp_path).returncode == 0
    stopped(2, "hydra.run.dir=mine")
    words = stopped(20, "ckpt_path=mine/checkpoints/last.ckpt", "resume=auto")
    assert f"hydra.run.dir={tmp_path / 'mine'}" in words and "resume=auto" in words
    again = processes.run([str(ROOT / "train.py"), *words], tmp_path)
    assert again.returncode == 0 and f"going on from {tmp_path / 'mine'}" in again.stdout, again.stderr


@pytest.mark.slow
def test_the_same_command_goes_on_after_sigterm_and_then_says_that_it_is_finished(stack, tmp_path):
    assert run(stack, tmp_path, *LONGER[:-1], "hydra.run.dir=whole").returncode == 0
    process = started(stack, tmp_path, 2, *LONGER)
    time.sleep(0.05)
    for _ in range(2):  # a scheduler may repeat it
        os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    (folder,) = (tmp_path / "outputs").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert 8 <= torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 48
    again = run(stack, tmp_path, *reversed(LONGER))
    assert again.returncode == 0 and "going on from" in again.stdout and "epoch 1/" not in again.stdout
    assert_same(folder, tmp_path / "whole")
    third = run(stack, tmp_path, *LONGER)
    assert third.returncode == 0 and "this run is finished, validation mIoU" in third.stdout
    assert third.stdout.count("\n") == 1, "one sentence"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [folder.name]


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(stack, tmp_path):
    longer = (*LONGER, "hydra.run.dir=parted", "data.num_workers=0")
    assert interrupted(stack, tmp_path, signal.SIGKILL, *longer) == -signal.SIGKILL
    for path in (tmp_path / "parted" / "checkpoints").iterdir():
        path.unlink()
    again = run(stack, tmp_path, *longer)
    assert again.returncode == 0 and "epoch 1/12" in again.stdout
    assert len(list((tmp_path / "parted").glob("events*"))) == 3, "a run's own, and none of the one before"
    assert "holds a run with seed=0, this one has seed=1" in refused(stack, tmp_path, *longer, "seed=1")
