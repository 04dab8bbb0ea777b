"""Resuming: the same command finds its run by its configuration, resumes it, or reports that it is finished."""

import json
import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import processes
import pytest
import torch
from conftest import ROOT, config
from folders import sentence
from omegaconf import OmegaConf
from test_command_line import interrupt, run, start
from test_segmenter import Evil
from test_training import assert_same, weights

from unet.errors import UserError
from unet.io.run_folder import ensure_new_or_resuming
from unet.runs.resume import check_resumable, check_same_config, resume_hint
from unet.runs.run import execute, last_checkpoint, run_or_resume
from unet.runs.run_names import quote_path, run_dir, sweep_name
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
    with pytest.raises(UserError, match=r"holds a run with optim.lr=0.5, this one has optim.lr=0.002"):
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


def resumable(folder: Path, *overrides: str, state: str = "interrupted") -> Path:
    """Write the files of a run with an empty checkpoint, and return the checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    OmegaConf.save(config(*overrides), folder / "config.yaml", resolve=True)
    (folder / "status.json").write_text(json.dumps({"state": state}))
    return last


def refusal(last: Path, *overrides: str) -> str:
    """Return the message with which a checkpoint is not resumed, after checking that the folder is unchanged."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in last.parent.parent.rglob("*") if path.is_file()}

    before, folder = contents(), Path(run_dir(str(last), str(last.parent.parent.parent / "new"), _root_=config()))
    with pytest.raises(UserError) as error:
        execute(train, config(quote_path(f"ckpt_path={last}"), *overrides), folder, [])
    assert contents() == before
    return sentence(error, f"ckpt_path={last}: ")


@pytest.mark.parametrize(
    ("override", "key", "saved", "new"),
    [
        ("model.width=8", "model.width", "16", "8"),
        ("loss.name=dice", "loss.name", "cross_entropy_dice", "dice"),
        ("optim.lr=0.5", "optim.lr", "0.002", "0.5"),
        ("data.batch_size=3", "data.batch_size", "8", "3"),
        ("data.root=elsewhere", "data.root", "somewhere", "elsewhere"),
        ("data.source.values={1: ignore}", "data.source.values.1", "b", "ignore"),
        ("optim.freeze=[encoder]", "optim.freeze", "None", r"['encoder']"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches", "1", "2"),
        ("seed=1", "seed", "0", "1"),
        ("ema=0.9", "ema", "None", "0.9"),
    ],
)
@pytest.mark.parametrize("state", ["interrupted", "done"])
def test_a_run_is_not_resumed_as_another_one(tmp_path: Path, override: str, key: str, saved: str, new: str, state: str):
    data = ["data=folder", "data.root=somewhere", "data.source.values={0: a, 1: b}"]
    last = resumable(tmp_path / "run", *data, state=state)
    message = refusal(last, *data, override)
    assert f"its run has {key}={saved}, this one has {key}={new}" in message and f"init={last}" in message


def test_another_data_set_is_refused(tmp_path: Path):
    last = resumable(tmp_path / "run", "data=camvid")
    assert "data.name=camvid, this one has data.name=folder (and" in refusal(last, "data=folder")


def test_keys_that_do_not_change_the_training_may_change(tmp_path: Path):
    last = resumable(tmp_path / "run")
    changes = [
        "data.num_workers=0",
        "data.eval_batch_size=1",
        "data.eval_tile=[32,32]",
        "threads=1",
        "diagnostics=false",
    ]
    execute(lambda config, folder: {}, config(f"ckpt_path={last}", *changes), tmp_path / "run", [])
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def test_more_epochs_of_a_finished_run_are_refused_with_the_way_to_train_on(tmp_path: Path):
    last = resumable(tmp_path / "my run (1)", state="done")
    for override in ("trainer.max_epochs=20", "trainer.max_steps=999", "seed=0"):
        message = refusal(last, override)
        assert "its run is finished, and so is its learning-rate schedule" in message
        assert f"start a new run with 'init=\"{last}\"' instead of ckpt_path" in message
    (tmp_path / "my run (1)" / "status.json").unlink()
    (tmp_path / "my run (1)" / "metrics.json").write_text("{}")
    assert "its run is finished" in refusal(last)


def test_an_unfinished_run_may_get_more_epochs_with_a_constant_learning_rate_alone(tmp_path: Path):
    constant = "optim.schedule=constant"
    last = resumable(tmp_path / "run", "trainer.max_epochs=7")
    assert "only with optim.schedule=constant" in refusal(last, "trainer.max_epochs=8")
    last = resumable(tmp_path / "constant", "trainer.max_epochs=7", constant)
    assert "trainer.max_epochs=7, this one has trainer.max_epochs=6" in refusal(last, "trainer.max_epochs=6", constant)
    check_resumable(config(f"ckpt_path={last}", constant, "trainer.max_epochs=8"))
    check_resumable(config(f"ckpt_path={last}", constant, "trainer.max_epochs=-1"))


def test_a_checkpoint_is_resumed_in_the_folder_of_its_run(tmp_path: Path):
    last = resumable(tmp_path / "run")
    (tmp_path / "copies" / "new").mkdir(parents=True)
    copy = shutil.copy(last, tmp_path / "copies" / "new" / "copy.ckpt")
    assert "no config.yaml of its run" in refusal(copy) and f"init={copy}" in refusal(copy)
    execute(lambda config, folder: {}, config(f"ckpt_path={last}"), tmp_path / "run", [])


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
