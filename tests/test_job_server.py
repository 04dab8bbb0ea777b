"""The processes of a sweep's jobs: forked from one server, isolated, signalled once, and free of orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from test_command_line import arguments, environment, run
from test_training import assert_same, weights

from unet.runs import job_server
from unet.runs.job_server import ADDRESS, Job, fork_job
from unet.runs.signals import handle_signals
from unet.training import shared_data
from unet.training.shared_data import get_baseline, get_data, read_shared_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not job_server.CAN_FORK, reason="jobs are forked on Linux only"),
]

COMMAND = """
import json, os, signal, sys, time
from pathlib import Path

COUNTED = []

def preload(data):
    COUNTED.append(data)
    if data == "slow":
        time.sleep(3)

def main():
    COUNTED.append("changed by a job")
    word, *paths = sys.argv[1:]
    facts = {"pid": os.getpid(), "server": os.getppid(), "session": os.getsid(0), "counted": COUNTED[:-1],
             "program": sys.argv[0], "LAB": os.environ.get("LAB"), "ignored": [
                 signum for signum in (2, 15) if signal.getsignal(signum) == signal.SIG_IGN],
             "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))}
    for path in paths:
        Path(path).write_text(json.dumps(facts))
    if word == "exit":
        sys.exit(3)
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "wait":
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            sys.exit(130)
    if word == "fail":
        raise ValueError("the reason")
"""


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Return a function that starts a job of the module above, which writes facts about its process to a file."""
    (tmp_path / "lab_command.py").write_text(COMMAND)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    monkeypatch.setattr(job_server, "_servers", [])
    monkeypatch.setenv(ADDRESS, "")

    def start(*words: str, data: Any = None, **variables: str) -> Job:
        return fork_job("lab_command", words, data, {**os.environ, "PYTHONPATH": path, **variables})

    # A shell that starts the tests in the background has SIGINT ignored, and a new process keeps that.
    with handle_signals(signal.default_int_handler, signal.SIGINT):
        yield start
    for server in job_server._servers:
        server.close()
        server.process.wait()


def wait_for(path: Path) -> dict[str, Any]:
    """Return the facts that a job writes, as soon as they are there."""
    for _ in range(600):
        if path.exists() and path.read_text():
            return json.loads(path.read_text())
        time.sleep(0.05)
    raise TimeoutError(path)


def has_ended(pid: int) -> bool:
    """Return whether a process ends within seconds; one that is not waited for by its new parent counts as ended."""
    try:
        process = psutil.Process(pid)
        for _ in range(200):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        return True
    return False


def test_each_job_has_a_process_in_the_state_of_the_server(fork, tmp_path):
    for index, data in enumerate(("first", "second")):
        assert fork("run", str(tmp_path / str(index)), data=data).wait() == 0
    first, second = (wait_for(tmp_path / name) for name in "01")
    assert first["pid"] != second["pid"] and first["server"] == second["server"]
    assert second["counted"] == ["first", "first", "second"], "the server is called at its start and before each job"
    assert first["program"] == sys.argv[0]
    assert first["ignored"] == first["blocked"] == []
    assert first["session"] not in (os.getsid(0), first["pid"])


@pytest.mark.parametrize(("word", "code"), [("run", 0), ("exit", 3), ("crash", -signal.SIGKILL), ("fail", 1)])
def test_the_exit_code_and_the_output_are_those_of_the_job(fork, capfd, word, code):
    assert fork(word).wait() == code
    errors = capfd.readouterr().err
    assert ("ValueError: the reason" in errors) == (word == "fail")
    assert fork("run").wait() == 0, "the server is still there"


def test_each_job_has_its_own_environment(fork, tmp_path):
    for index, value in enumerate("aab"):
        assert fork("run", str(tmp_path / str(index)), LAB=value).wait() == 0
    facts = [wait_for(tmp_path / name) for name in "012"]
    assert [fact["LAB"] for fact in facts] == ["a", "a", "b"] and len({fact["server"] for fact in facts}) == 1


def test_jobs_at_the_same_time_and_of_another_process_have_one_server(fork, tmp_path):
    first, second = (fork("wait", str(tmp_path / name), data=name) for name in ("first", "second"))
    facts = [wait_for(tmp_path / name) for name in ("first", "second")]
    code = f"""
import os
from unet.runs.job_server import fork_job
assert fork_job("lab_command", ["exit", {str(tmp_path / "third")!r}], "third", os.environ).wait() == 3
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    facts.append(wait_for(tmp_path / "third"))
    assert len({fact["server"] for fact in facts}) == 1
    assert facts[2]["counted"] == ["first", "first"], "a job with other data reads them itself while jobs run"
    os.kill(facts[1]["pid"], signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL
    os.kill(facts[0]["pid"], signal.SIGINT)
    assert first.wait() == 130


def test_a_signal_reaches_the_job_once_it_runs_and_prevents_its_start_before(fork, tmp_path):
    job = fork("wait", str(tmp_path / "facts"), data="slow")
    start = time.monotonic()
    with handle_signals(lambda *args: job.send_signal(signal.SIGINT), signal.SIGALRM):
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        assert job.wait() is None and time.monotonic() - start < 2, "it does not wait for the server"
    assert fork("run").wait() == 0 and not (tmp_path / "facts").exists()
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        path = tmp_path / f"facts{signum}"
        job = fork("wait", str(path))
        sent: list[int] = []

        def send(*args: Any, job: Job = job, signum: int = signum, sent: list[int] = sent) -> None:
            job.send_signal(signum)
            sent.append(signum)

        with handle_signals(send, signal.SIGALRM):
            signal.setitimer(signal.ITIMER_REAL, 2)  # when the job waits
            assert job.wait() == code and sent == [signum]


def test_a_stopped_server_ends_after_the_jobs_that_run(fork, tmp_path):
    job = fork("wait", str(tmp_path / "facts"))
    facts = wait_for(tmp_path / "facts")
    os.kill(facts["server"], signal.SIGTERM)  # as a job scheduler may
    time.sleep(0.5)
    os.kill(facts["pid"], signal.SIGINT)
    assert job.wait() == 130 and has_ended(facts["server"])
    assert fork("run").wait() == 0, "another one is started"


def test_a_server_that_was_killed_is_replaced(fork, tmp_path):
    job = fork("wait", str(tmp_path / "facts"))
    facts = wait_for(tmp_path / "facts")
    os.kill(facts["server"], signal.SIGKILL)
    assert job.wait() is None and has_ended(facts["server"])
    assert psutil.pid_exists(facts["pid"]), "the job has survived"
    os.kill(facts["pid"], signal.SIGKILL)
    assert fork("run").wait() == 0


def test_a_killed_sweep_leaves_its_job_and_no_server(tmp_path):
    (tmp_path / "lab_command.py").write_text(COMMAND)
    code = """
import os, sys
from unet.runs.job_server import fork_job
fork_job("lab_command", ["run", sys.argv[1] + "/first"], None, os.environ).wait()
fork_job("lab_command", ["wait", sys.argv[1] + "/second"], None, os.environ).wait()
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    sweep = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env)
    facts = wait_for(tmp_path / "second")
    sweep.kill()
    sweep.wait()
    assert psutil.Process(facts["pid"]).is_running() and psutil.pid_exists(facts["server"])
    os.kill(facts["pid"], signal.SIGTERM)
    assert has_ended(facts["pid"]) and has_ended(facts["server"])


def test_nothing_of_the_current_folder_is_imported(fork, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    for name in ("json.py", "unet.py"):
        (tmp_path / "here" / name).write_text("raise ImportError('a module of the current folder')")
    monkeypatch.chdir(tmp_path / "here")
    assert fork("run").wait() == 0


def test_the_server_has_one_thread_no_cuda_and_all_libraries_of_a_training(stack, composed, tmp_path):
    """Forked processes would lack other threads and could not use CUDA. A job imports no further library."""
    code = f"""
import os, sys, time
import unet.commands.train
unet.commands.train.preload({OmegaConf.to_container(composed().data, resolve=True)!r})
import torch
from unet.training.shared_data import _shared
assert _shared["data"].samples["train"].cache
time.sleep(1)  # the system lists the threads that have read the data for some moments after their end
assert len(os.listdir("/proc/self/task")) == 1
assert not torch.cuda.is_initialized()
before = {{name.partition(".")[0] for name in sys.modules}}
sys.argv = {[*arguments(stack, "diagnostics=true", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run")]!r}
unet.commands.train.main()
new = {{name.partition(".")[0] for name in sys.modules}} - before - {{"hydra_plugins"}}
assert not new, new
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forked_job_equals_the_same_run_alone(stack, tmp_path):
    """The second job of a sweep, with two threads, data that the server read, and diagnostics."""
    options = ("trainer.max_epochs=1", "threads=2", "diagnostics=true", "num_logged_images=2")
    sweep = run(stack, tmp_path, "-m", "hydra.sweep.dir=sweep", "seed=1,0", *options)
    assert sweep.returncode == 0, sweep.stderr
    command = [sys.executable, *arguments(stack, "hydra.run.dir=alone", "seed=0", *options)]
    alone = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    (job,) = (tmp_path / "sweep").glob("seed-0_*")
    assert_same(weights(job), weights(tmp_path / "alone"))
    assert_same(weights(job, "best"), weights(tmp_path / "alone", "best"))
    forked, single = (json.loads((folder / "metrics.json").read_text()) for folder in (job, tmp_path / "alone"))
    assert forked.keys() == single.keys()
    assert [key for key in single if forked[key] != single[key] and not key.startswith(("time/", "memory/"))] == []
    for name in ("predictions.png", "confusions.npz"):
        assert (job / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    names = [
        {path.name for path in folder.iterdir() if "tfevents" not in path.name} for folder in (job, tmp_path / "alone")
    ]
    assert names[0] == names[1]
    lines = [line for line in alone.stdout.splitlines() if "samples/s" not in line and "alone" not in line]
    assert [line for line in lines if line not in sweep.stdout] == []


def test_a_job_that_was_killed_fails_alone(stack, tmp_path):
    """Its process dies while it trains; the next job runs."""
    command = [sys.executable, *arguments(stack, "-m", "hydra.sweep.dir=sweep", "trainer.max_epochs=12", "seed=0,1")]
    sweep = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert sweep.stdout is not None
    for line in sweep.stdout:
        if line.startswith("epoch 1/"):
            break
    (server,) = psutil.Process(sweep.pid).children()
    (job,) = server.children()
    job.kill()
    sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    states = {path.parent.name[:6]: json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/status.json")}
    assert states["seed-0"]["state"] == "failed" and "was ended by SIGKILL" in states["seed-0"]["reason"]
    assert states["seed-1"]["state"] == "done"
    assert has_ended(server.pid)


def test_without_fork_each_job_starts_python(stack, tmp_path):
    code = f"""
import runpy, sys
from unet.runs import job_process
job_process.CAN_FORK = False
sys.argv = {arguments(stack, "-m", "hydra.sweep.dir=sweep", "trainer.max_epochs=1", "seed=0")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment() | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    (status,) = (tmp_path / "sweep").glob("*/status.json")
    assert json.loads(status.read_text())["state"] == "done"


def test_shared_data_is_read_once_and_used_for_its_settings_only(composed, monkeypatch):
    monkeypatch.setattr(shared_data, "_shared", {})
    config = composed("seed=3")
    read_shared_data(OmegaConf.to_container(config.data, resolve=True))  # type: ignore[arg-type]
    data = get_data(config)
    assert data.seed == 3 and data.samples["train"].cache
    read_shared_data(OmegaConf.to_container(config.data, resolve=True))  # type: ignore[arg-type]
    assert get_data(composed("seed=4")) is data and data.seed == 4
    other = get_data(composed("data.batch_size=2"))
    assert other is not data and not other.samples and other.batch_size == 2
    fresh = get_data(composed("data.batch_size=2", "seed=4"))
    assert torch.equal(fresh_example(fresh), data.example("train"))
    expected = get_baseline(fresh)
    assert expected.keys() == {"baseline/miou", "baseline/iou/membrane", "baseline/iou/cell"}
    monkeypatch.setattr(shared_data, "baseline_scores", None)
    assert get_baseline(data) == expected, "it was computed with the shared data"


def fresh_example(data: Any) -> torch.Tensor:
    data.read()
    return data.example("train")


def test_data_that_cannot_be_read_is_reported_by_the_job(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_data, "_shared", {"settings": {}, "data": None})
    settings = OmegaConf.to_container(composed(f"data.root={tmp_path}").data, resolve=True)
    read_shared_data(settings)  # type: ignore[arg-type]
    assert not shared_data._shared
