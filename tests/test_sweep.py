"""Sweeps: a job's folder has a hash of its configuration; finished jobs are skipped, interrupted ones resumed."""

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
from conftest import ROOT
from omegaconf import OmegaConf, open_dict
from test_command_line import run, start
from test_training import assert_same, weights

from unet.errors import UserError
from unet.io.atomic import read_json, write_json
from unet.io.run_folder import reset_run_folder
from unet.runs.folder_lock import lock_folder
from unet.runs.job_process import objective
from unet.runs.run_names import job_name, sweep_name, swept_keys
from unet.runs.sweep import Sweep, print_table, progress_line, read_states
from unet.training.callbacks.pruning import MIN_JOBS, VALIDATIONS

pytestmark = pytest.mark.slow
SHORT = ("-m", "hydra.sweep.dir=sweep", "subprocess_per_job=false", "trainer.max_epochs=1")


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/status.json")}


def times(folder: Path) -> dict[str, float]:
    """Return the time at which the metrics of every job were written."""
    return {path.parent.name: path.stat().st_mtime for path in folder.glob("*/metrics.json")}


def test_finished_jobs_are_not_run_again_and_failed_ones_only_with_retry_failed(stack, tmp_path):
    sweep = tmp_path / "sweep"
    first = run(stack, tmp_path, *SHORT, "model.width=4,-1")
    assert first.returncode == 1 and "1 done, 1 failed, 0 to go" in first.stdout and "Traceback" not in first.stderr
    for name, status in jobs(sweep).items():
        assert (status["state"] == "failed") == ("width--1" in name) == (sweep / name / "error.txt").exists()
    first_times = times(sweep)
    # The same job written differently, and a new one.
    second = run(stack, tmp_path, *SHORT, "model.down=max,avg", "model.width=4", "threads=1")
    assert second.returncode == 0, second.stderr
    assert "sweep of 2 jobs in sweep: 1 done, 1 to go" in second.stdout
    second_times = times(sweep)
    assert len(second_times) == 2 and first_times.items() <= second_times.items()
    third = run(stack, tmp_path, *SHORT, "model.width=4,-1", "model.down=max")
    assert third.returncode == 1 and "failed before: model.width: expected an integer" in third.stderr
    fourth = run(stack, tmp_path, *SHORT, "model.width=4,-1", "model.down=max", "retry_failed=true")
    assert "failed before" not in fourth.stderr and "failed: model.width" in fourth.stderr
    assert times(sweep) == second_times


def test_a_killed_sweep_ends_like_an_uninterrupted_one(stack, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "__init__.py").write_text("raise ImportError('a package of the current folder')")
    sweep = ("-m", "trainer.max_epochs=8", "seed=0,1", "optim.lr=0.001")
    process = start(stack, tmp_path, 4, *sweep, "hydra.sweep.dir=killed")
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        member.kill()
    process.communicate(timeout=60)
    states = jobs(tmp_path / "killed")
    assert sorted(value["state"] for value in states.values()) == ["pending", "running"]
    again = run(stack, tmp_path, *sweep, "hydra.sweep.dir=killed")
    assert again.returncode == 0, again.stderr
    assert "epoch 1/8" not in again.stdout.split("sweep: ")[0], "the first job is resumed"
    assert run(stack, tmp_path, *sweep, "hydra.sweep.dir=uninterrupted", "subprocess_per_job=false").returncode == 0
    assert jobs(tmp_path / "killed").keys() == jobs(tmp_path / "uninterrupted").keys()
    for name in states:
        folders = [tmp_path / root / name for root in ("killed", "uninterrupted")]
        assert_same(*map(weights, folders))
        killed, expected = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
        keys = [key for key in expected if key.startswith(("test/", "steps"))]
        assert [killed[key] for key in keys] == [expected[key] for key in keys]


def test_a_signal_stops_a_sweep_with_its_job_saved(stack, tmp_path):
    process = start(stack, tmp_path, 2, "-m", "hydra.sweep.dir=sweep", "trainer.max_epochs=400", "seed=0,1")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    states = jobs(tmp_path / "sweep")
    assert sorted(value["state"] for value in states.values()) == ["interrupted", "pending"]
    (job,) = [name for name, value in states.items() if value["state"] == "interrupted"]
    assert torch.load(tmp_path / "sweep" / job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= 8


def test_the_same_sweep_twice_at_once_runs_its_job_once(stack, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=sweep", "trainer.max_epochs=40", "seed=0")
    first = start(stack, tmp_path, 1, *sweep)
    second = run(stack, tmp_path, *sweep)
    first_output, _ = first.communicate(timeout=120)
    assert first.returncode == second.returncode == 0, second.stderr
    assert "waiting for the process that is running this job" in second.stderr and "failed" not in second.stderr
    assert first_output.count("results in") + second.stdout.count("results in") == 1
    assert [value["state"] for value in jobs(tmp_path / "sweep").values()] == ["done"]


def test_the_job_of_a_killed_sweep_keeps_its_folder_locked(tmp_path):
    """The sweep and its job's process have one lock each; the job's lock remains if the sweep is killed."""
    job = f"""
import os, time
from pathlib import Path
from unet.runs.folder_lock import lock_folder
with lock_folder(Path({str(tmp_path)!r})):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
    code = f"""
import subprocess, sys
from pathlib import Path
import os
from unet.runs import job_process
from unet.runs.folder_lock import LOCKED_BY, lock_folder, process_key
job_process.start_job = lambda config, arguments: subprocess.Popen(
    [sys.executable, "-c", {job!r}], env={{**os.environ, LOCKED_BY: process_key(os.getpid())}}
)
with lock_folder(Path({str(tmp_path)!r})) as running:
    job_process.run_in_subprocess(None, Path({str(tmp_path)!r}), [], running)
"""
    sweep = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert sweep.stdout is not None
    pid = int(sweep.stdout.readline())
    for kill in (sweep.kill, lambda: os.kill(pid, signal.SIGKILL)):
        with pytest.raises(UserError, match="another process is running this job"), lock_folder(tmp_path):
            pass
        kill()
        sweep.wait()
    sweep.communicate()  # returns when the job, which has its output open, has ended too
    with lock_folder(tmp_path):
        pass


def test_a_folder_is_locked_by_one_process_and_not_by_its_children(tmp_path):
    code = f"""
import multiprocessing, os, sys, time
from pathlib import Path
from unet.runs.folder_lock import lock_folder
with lock_folder(Path({str(tmp_path)!r})):
    def wait():
        print(os.getpid(), flush=True)
        time.sleep(60)
    multiprocessing.get_context("fork").Process(target=wait).start()  # like a loader process
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    with pytest.raises(UserError, match="another process is running this job"), lock_folder(tmp_path):
        pass
    parent.kill()
    parent.wait()
    with lock_folder(tmp_path):  # though the child is alive
        os.kill(child, signal.SIGKILL)
    parent.communicate()


def test_only_files_of_a_run_are_removed(tmp_path):
    for name in ("events.out.tfevents.1.host", "error.txt", "notes.md", "checkpoints/best.ckpt", "mine/picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    reset_run_folder(tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["mine/picture.png", "notes.md"]


def test_a_sweep_is_ordered_by_validation_and_never_by_test(tmp_path, capsys):
    first = {"best/val_miou": 0.7, "val/miou": 0.1, "test/miou": 0.6}
    assert objective(first) == 0.7 and objective({"val/miou": 0.4}) == 0.4
    costs = {"state": "done", "model/parameters": 1, "model/flops": 1, "time/train_seconds": 1}
    print_table(tmp_path, {"lucky": {"best/val_miou": 0.5, "test/miou": 0.9} | costs, "better": first | costs})
    table = capsys.readouterr().out
    assert table.index("better") < table.index("lucky") and table.index("val mIoU") < table.index("test mIoU")


def test_a_search_that_minimizes_the_score_is_refused(tmp_path):
    sweeper = {"_target_": "hydra_plugins.optuna.OptunaSweeper", "direction": "minimize"}
    config = OmegaConf.create({"hydra": {"sweeper": sweeper, "sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(
        UserError, match=r"direction: expected maximize, since the objective .* use hydra/sweeper=search"
    ):
        Sweep().write_jobs(config)


def test_a_search_with_questions_is_refused(tmp_path):
    sweeper = {"_target_": "hydra_plugins.optuna.OptunaSweeper", "direction": "maximize"}
    values = {"hydra": {"sweeper": sweeper, "sweep": {"dir": str(tmp_path)}}, "questions": {"model.up": "nearest"}}
    config = OmegaConf.create({**values, "trainer": {"devices": 1, "num_nodes": 1}})
    with pytest.raises(UserError, match="questions: a search compares nothing; leave them out"):
        Sweep().write_jobs(config)


def test_a_search_chooses_its_jobs_resumes_and_is_reported_as_one(stack, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs pip install -e '.[search]'")
    space = ["hydra/sweeper=search", "optim.lr=tag(log,interval(1e-4,1e-1))", "model.down=max,avg"]
    for trials in (2, 3):
        result = run(stack, tmp_path, *SHORT, *space, f"hydra.sweeper.n_trials={trials}")
        assert result.returncode == 0, result.stderr
        runs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
        assert len(runs) == trials, "the first jobs are the same"
        assert all(run.name.startswith("optim.lr-0.") and "model.down-" in run.name for run in runs)
    assert "3 runs are a search, which is no comparison" in result.stdout and "questions" not in result.stdout
    best = max(runs, key=lambda folder: json.loads((folder / "metrics.json").read_text())["best/val_miou"])
    assert f"on validation is {best.name}" in result.stdout
    failing = [*SHORT[2:], *space, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=failed", "model.width=-1"]
    result = run(stack, tmp_path, "-m", *failing)
    assert result.returncode == 1 and "2 of 2 jobs did not finish" in result.stderr


def test_pruning_outside_of_a_search_is_refused(stack, tmp_path):
    result = run(stack, tmp_path, *SHORT, "prune=true", "seed=0,1")
    assert result.returncode == 1 and "prune=true: only in a search (-m hydra/sweeper=search)" in result.stderr


def test_a_search_with_pruning_stops_jobs_finishes_and_reports_them(stack, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs pip install -e '.[search]'")
    for number in range(MIN_JOBS):
        (tmp_path / "sweep" / f"better{number}").mkdir(parents=True)
        write_json(tmp_path / "sweep" / f"better{number}" / VALIDATIONS, {"0": 0.5, "1": 1.0})
    space = ["hydra/sweeper=search", "optim.lr=tag(log,interval(1e-4,1e-1))", "prune=true", "trainer.max_epochs=4"]
    result = run(stack, tmp_path, *SHORT, *space, "hydra.sweeper.n_trials=2")
    assert result.returncode == 0, result.stderr
    metrics = [read_json(path) for path in (tmp_path / "sweep").glob("*/metrics.json")]
    assert len(metrics) == 2 and all("the median of" in values["pruned"] for values in metrics)
    assert result.stdout.count("stopped after epoch 2: val/miou") == 2
    assert "These 2 runs (2 stopped early) are a search" in result.stdout


def test_progress_has_the_remaining_time_with_diagnostics_and_parallel_jobs(tmp_path):
    assert read_states(tmp_path, ["gone"]) == {"gone": {"state": "pending", "reason": ""}}
    done = {"state": "done", "time/train_seconds": 50.0, "time/diagnostics_seconds": 10.0}
    jobs = read_states(tmp_path, "abc") | {"first": done}
    assert progress_line(jobs) == "1 done, 3 to go, about 3:00 left"
    assert progress_line(jobs | {"second": {"state": "running"}}) == "1 done, 1 running, 3 to go, about 1:30 left"


def test_the_name_of_a_sweep_has_its_swept_overrides():
    command = ["data=isbi2012", "model.down=max,avg", "seed=range(3)", "threads=1"]
    assert swept_keys(command, None) == ["model.down", "seed"]
    assert swept_keys(command, {"model.up": "nearest,haar", "optim.lr": "0.1"}) == ["model.up", "model.down", "seed"]
    assert sweep_name(["model.down=max,avg", "seed=0,1"]) == "model.down-max-avg"
    assert sweep_name(["model.width=[1,2],3"]) != sweep_name(["model.width=1,2,3"])
    assert sweep_name(["seed=0,1"]) == "seeds"
    assert sweep_name(["sweep=up", "seed=0,1"]) == "up"
    assert sweep_name(["sweep=up", "data=isbi2012"]).startswith("up_")
    assert sweep_name(["sweep=up", "data=isbi2012"]) != sweep_name(["sweep=up", "data=camvid"])
    assert sweep_name(["sweep=up", "threads=1"]) == sweep_name(["sweep=up", "seed=range(9)"])


def test_an_override_that_refers_to_other_keys_has_the_value_of_each_job(stack, tmp_path):
    rates = ["+rates={max: 0.02}", "model.down=max", 'optim.lr="${rates.${model.down}}"']
    done = run(stack, tmp_path, *SHORT, "seed=0,1", "data.source.split_seed=${seed}", *rates)
    assert done.returncode == 0 and "2 done, 0 to go" in done.stdout, done.stderr
    configs = [OmegaConf.load(path) for path in (tmp_path / "sweep").glob("*/config.yaml")]
    values = sorted((config.seed, config.data.source.split_seed, config.optim.lr) for config in configs)
    assert values == [(0, 0, 0.02), (1, 1, 0.02)]
    words = ["seed=0,1", "data.source.split_seed=${seed}"]
    config = OmegaConf.create({"seed": 0, "words": words})
    assert sweep_name(config.words) == sweep_name(words) != sweep_name([words[0], "data.source.split_seed=0"])


def test_the_name_of_a_job_has_a_hash_of_its_configuration(composed, tmp_path):
    def name(keys: list[str], *overrides: str) -> str:
        config = composed(*overrides)
        with open_dict(config):
            config.hydra = OmegaConf.create({"sweep": {"dir": str(tmp_path)}})
        return job_name(overrides, keys, _root_=config)

    plain = name(["model.down"], "model.down=max")
    assert plain.startswith("model.down-max_")
    assert name(["seed"], "seed=0") == plain.replace("model.down-max", "seed-0")
    assert name(["model.down"], "model.down=max", "threads=2", "ckpt_path=x") == plain
    assert name(["model.down"], "model.down=avg")[-8:] != plain[-8:]
    (tmp_path / plain).mkdir()
    assert name(["seed"], "seed=0") == plain, "the existing folder"
