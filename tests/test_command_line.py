"""The command line: error messages, exit statuses, folders, sweeps, interruption."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
from conftest import ROOT, TINY
from hydra.errors import ConfigCompositionException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_training import assert_same, weights

import unet
from unet import __main__ as dispatch
from unet.runs.error_messages import format_error
from unet.runs.run_names import as_override, override_slug, parsed_value, quote_path, run_dir

pytestmark = pytest.mark.slow


def arguments(stack: Path, *overrides: str) -> list[str]:
    flags = [override for override in overrides if override.startswith("-")]  # Hydra wants them first
    values = [override for override in overrides if not override.startswith("-")]
    return [str(ROOT / "train.py"), *flags, "data=isbi2012", f"data.root={stack}", *TINY, *values]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}


def run(stack: Path, cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return processes.run(arguments(stack, *overrides), cwd)


def test_a_folder_that_holds_a_run_is_not_overwritten(stack, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.json").touch()
    result = run(stack, tmp_path, "hydra.run.dir=mine", "seed=1")
    assert result.returncode == 1 and "already holds a run" in result.stderr and "Traceback" not in result.stderr
    assert {path.name for path in (tmp_path / "mine").iterdir()} <= {"metrics.json", ".lock", ".running"}


@pytest.mark.parametrize("name, extra", [("sweeper/optuna", "search"), ("launcher/submitit_slurm", "slurm")])
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(name: str, extra: str):
    error = ConfigCompositionException(f"In 'hydra/sweeper/x': Could not load 'hydra/{name}'.\n\nConfig search path:")
    assert format_error(error) == f"hydra/{name} is not installed; run: pip install -e '.[{extra}]'"


def test_hydra_full_error_shows_the_traceback(stack, tmp_path):
    env = environment() | {"HYDRA_FULL_ERROR": "1"}
    command = [sys.executable, *arguments(stack, "model.down=stride")]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "Traceback" in result.stderr


def test_a_job_of_a_sweep_equals_the_same_run_alone(stack, tmp_path):
    options = "subprocess_per_job=false", "trainer.max_epochs=1"
    assert run(stack, tmp_path, "-m", "hydra.sweep.dir=sweep", *options, "seed=1,0").returncode == 0
    assert run(stack, tmp_path, "hydra.run.dir=alone", "seed=0", *options).returncode == 0
    configs = (tmp_path / "sweep").glob("*/config.yaml")
    (job,) = (path.parent for path in configs if "\nseed: 0\n" in path.read_text())
    assert_same(weights(job), weights(tmp_path / "alone"))


def start(stack: Path, cwd: Path, epoch: int, *overrides: str) -> processes.Command:
    """Start a command in a session of its own and wait until it has finished that epoch."""
    process = processes.Command(arguments(stack, *overrides), cwd)
    for line in process.stdout:
        if line.startswith(f"epoch {epoch}/"):
            break
    return process


def interrupt(stack: Path, cwd: Path, signum: int, *overrides: str) -> int:
    """Start a run, send its process group a signal in epoch 4, as a terminal does; return its exit status."""
    process = start(stack, cwd, 3, "hydra.run.dir=resumed", *overrides)  # the checkpoint of epoch 2 is saved
    time.sleep(0.05)
    os.killpg(process.pid, signum)
    process.communicate(timeout=60)
    return process.returncode


LONGER = ("trainer.max_epochs=20", "optim.lr=0.001")


@pytest.fixture(scope="module")
def uninterrupted(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run; the number of loader processes does not change it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(stack, folder, "hydra.run.dir=run", *LONGER).returncode == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("signum", "status", "workers"),
    [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 0), (signal.SIGKILL, -9, 2)],
)
def test_an_interrupted_command_resumes_to_the_same_weights(stack, uninterrupted, tmp_path, signum, status, workers):
    longer = (*LONGER, f"data.num_workers={workers}")
    assert interrupt(stack, tmp_path, signum, *longer) == status
    last = tmp_path / "resumed" / "checkpoints" / "last.ckpt"
    assert 8 <= torch.load(last, weights_only=True)["global_step"] < 80
    state = json.loads((tmp_path / "resumed" / "status.json").read_text())["state"]
    assert state == ("running" if signum == signal.SIGKILL else "interrupted")
    assert run(stack, tmp_path, f"ckpt_path={last}", *longer).returncode == 0
    assert (tmp_path / "resumed" / "metrics.json").is_file()
    assert_same(weights(tmp_path / "resumed"), weights(uninterrupted))


def test_help_shows_examples_and_every_key_without_loading_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", ROOT / "train.py", "--help"]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "hydra" in loaded and not loaded & {"torch", "lightning", "albumentations"}
    for word in ("Examples", "model.down=strided", "camvid", "max_epochs"):
        assert word in result.stdout


def test_names_of_folders():
    assert override_slug("_", []) == ""
    assert override_slug("_", ["model.down=[max,strided]", "seed=1", "ckpt_path=x"]) == "_model.down-max-strided_seed-1"
    long = override_slug("", ["a=" + "x" * 400, "seed=3"])
    assert long.endswith("_seed-3") and len(long) < 60 and long != override_slug("", ["a=" + "x" * 401, "seed=3"])
    assert len(override_slug("", [f"key{number}={number}" for number in range(99)])) == 150
    root, ckpt_path = OmegaConf.create(), "outputs/x/checkpoints/last.ckpt"
    assert run_dir(None, "new", _root_=root) == run_dir("somewhere/model.ckpt", "new", _root_=root) == "new"
    assert run_dir(ckpt_path, "new", _root_=root) == run_dir(ckpt_path, "new", "auto", _root_=root) == "outputs/x"


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_hydra_takes_the_path_of_a_run_without_quotes(values):
    overrides = [f"key{number}={value}" for number, value in enumerate(values)]
    for name in (override_slug("2026-01-01_10-00-00_", overrides), f"{override_slug('sweep_', overrides)}/x_1a2b3c4d"):
        path = f"outputs/{name}/checkpoints/last.ckpt"
        assert parsed_value(f"ckpt_path={path}") == path and as_override("ckpt_path", path) == f"ckpt_path={path}"


@pytest.mark.parametrize(
    "value", ["a b", "a, b (1).png", "it's", "back\\slash\\", "[x]{y}", "a=max,seed=1/x", "2024", "true", "~/ä", "${x}"]
)
def test_an_override_keeps_any_path(value):
    assert parsed_value(as_override("input", value)) == value


@pytest.mark.parametrize(
    "folder", ["model.down=max,seed=1", "[mine]", "a,b", "my run (1) [x]", "Größe", "it's", "null"]
)
def test_a_path_needs_no_quotes(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / folder).mkdir()
    for path in (f"{folder}/best.ckpt", str(tmp_path / folder / "best.ckpt"), f"~/{folder}/best.ckpt"):
        Path(path).expanduser().touch()
        for key in ("ckpt", "ckpt_path", "init", "input", "output", "data.root", "hydra.run.dir", "fix"):
            quoted = quote_path(f"{key}={path}")
            assert parsed_value(quoted) == str(Path(path).expanduser()) and quote_path(quoted) == quoted
    assert quote_path("init=~/a.ckpt,~/b.ckpt") == f"init={tmp_path}/a.ckpt,{tmp_path}/b.ckpt", "a sweep"
    for other in ("seed=range(6)", "ckpt=[a,b]", "init=null", "model.down=max,avg", "--help", "~ckpt", "init="):
        assert quote_path(other) == other


def test_an_argument_may_be_longer_than_a_file_name(tmp_path):
    paths = ",".join(["a" * 200] * 30)
    for argument in (f"init={paths}", f"ckpt=[{paths}]", f"input={paths}"):
        assert quote_path(argument) == argument
    words = [str(ROOT / "train.py"), "--cfg", "job", "-p", "data.train_transforms"]
    result = processes.run([*words, f"data.train_transforms=[{','.join(['{name: x}'] * 600)}]"], tmp_path)
    assert result.returncode == 0 and result.stdout.count("name: x") == 600, result.stderr


def test_several_paths_for_one_command_get_a_message_with_the_quoted_path(tmp_path):
    predict = [str(ROOT / "scripts" / "predict.py"), "input=x", "output=y"]
    result = processes.run([*predict, "ckpt=a,b/best.ckpt"], tmp_path)
    (quoted,) = shlex.split(result.stderr.partition("quote it twice: ")[2])
    assert result.returncode in (1, 2) and parsed_value(quoted) == "a,b/best.ckpt"
    assert "a,b/best.ckpt: No such file" in processes.run([*predict, quoted], tmp_path).stderr


@pytest.mark.parametrize("words", [["train.py", "--cfg", "job"], ["scripts/describe.py"]], ids=lambda words: words[0])
def test_a_closed_output_pipe_is_not_an_error(words):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, ROOT / words[0], *words[1:]]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == "" and done.returncode in (128 + signal.SIGPIPE, 1), "1 is what rich has for it"


def test_an_unexpected_error_has_its_location():
    with pytest.raises(RuntimeError) as error:
        raise RuntimeError("a\nb")
    text = format_error(error.value)
    assert text.startswith("RuntimeError: a b (at test_command_line.py:") and "HYDRA_FULL_ERROR=1" in text


COMMANDS = {
    "baseline": "Score a per-pixel colour histogram",
    "curve": "Print the validation scores of runs against the seconds",
    "check_data": "Check a data set before training",
    "describe": "Describe a network level by level",
    "evaluate": "Evaluate a trained network",
    "export": "a folder that runs without this project",
    "predict": "Predict images, volumes or sequences",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name, tmp_path):
    result = processes.run([str(ROOT / "scripts" / f"{name}.py"), "--help"], tmp_path)
    assert result.returncode == 0 and COMMANDS[name] in result.stdout
    assert f"python scripts/{name}.py" in result.stdout and "python train.py model" not in result.stdout


@pytest.mark.parametrize("flags", [["-m"], ["--multirun"], ["hydra.mode=MULTIRUN"]], ids=" ".join)
@pytest.mark.parametrize("name", COMMANDS)
def test_only_a_training_is_swept(name, flags, tmp_path):
    key = {"predict": "tta", "evaluate": "split", "export": "labels"}.get(name, "seed")
    result = processes.run([str(ROOT / "scripts" / f"{name}.py"), *flags, f"{key}=0,1"], tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr == "error: -m, --multirun: only train runs sweeps: python train.py -m KEY=A,B\n"
    assert list(tmp_path.iterdir()) == []


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run the console command with these words."""
    monkeypatch.setattr(sys, "argv", ["unet-lab", *words])
    dispatch.main()


def test_the_console_command_lists_and_runs_the_commands(monkeypatch, capsys):
    call(monkeypatch)
    output = capsys.readouterr().out
    for name in dispatch.COMMANDS:
        assert f"\n  {name} " in output
        with pytest.raises(SystemExit):
            call(monkeypatch, name, "--help")
        assert f"unet-lab {name}" in capsys.readouterr().out
    call(monkeypatch, "--version")
    assert capsys.readouterr().out == f"unet-lab {unet.__version__}\n"
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "trian")
    assert end.value.code == 2 and "error: trian: no such command; did you mean train?" in capsys.readouterr().err
