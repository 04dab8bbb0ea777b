"""The process of a sweep's job, and the score that the sweep receives."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from unet.io.atomic import read_json
from unet.io.provenance import ROOT
from unet.io.run_folder import METRICS, STATUS, write_status
from unet.runs.cli import FULL_ERROR, program_name
from unet.runs.folder_lock import LOCKED_BY, process_key
from unet.runs.job_server import CAN_FORK, Job, fork_job, start_server
from unet.runs.signals import handle_signals

TRAIN = "unet.commands.train"
"""The module of the command that a job runs."""
NO_SCORE = 0.0
"""The objective of a job that did not finish: the lowest mIoU, since Optuna's sweeper ends a search at NaN."""


def run_in_subprocess(config: DictConfig, folder: Path, arguments: Sequence[str], running: FileLock) -> float:
    """Run the job in a process of its own, so that jobs share no state and a killed job ends only itself.

    ``running`` is released for that process; this one keeps the folder's other lock.
    """
    running.release()
    child = start_job(config, arguments)
    forwarded: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        forwarded.append(signum)
        if signum == signal.SIGTERM or os.name != "nt":  # on Windows a Ctrl-C has reached the child already
            child.send_signal(signum)

    with handle_signals(forward, signal.SIGINT, signal.SIGTERM):
        code = child.wait()
    if forwarded:
        sys.exit(128 + forwarded[0])
    running.acquire()  # another sweep's process of this job may have started meanwhile; then its state is read
    state = read_json(folder / STATUS).get("state")
    if state == "done":
        return objective(read_json(folder / METRICS))
    if state != "failed":
        cause = f"its process ended with status {code}"
        if code is None:
            cause = "the server of the sweep's jobs ended"
        elif code < 0:
            cause = f"its process was ended by {signal.Signals(-code).name}"
        write_status(folder, "failed", f"{cause}; after SIGKILL, memory may have run out")
    return NO_SCORE


def start_job(config: DictConfig, arguments: Sequence[str]) -> Job | subprocess.Popen:
    """Start the process of a job: forked from the server, or elsewhere than on Linux with a new Python.

    In a session of its own it gets no signal from the terminal: exactly one signal reaches it, from the sweep.
    """
    environment = job_environment() | {LOCKED_BY: process_key(os.getpid())}
    if CAN_FORK:
        return fork_job(TRAIN, arguments, job_data(config), environment)
    program = ["unet", "train"] if program_name("train").startswith("unet-lab") else [TRAIN]
    return subprocess.Popen([sys.executable, "-P", "-m", *program, *arguments], env=environment, start_new_session=True)


def start_job_server(config: DictConfig) -> None:
    """Start the server of a sweep's jobs with the config of the first one, where jobs are forked on this machine.

    It imports the libraries and reads the data while the sweep composes the other configs and starts its processes.
    """
    launcher = config.hydra.launcher
    if CAN_FORK and config.subprocess_per_job and (is_parallel(launcher) or "BasicLauncher" in launcher._target_):
        threads = config.threads or (1 if is_parallel(launcher) else None)
        variables = {"OMP_NUM_THREADS": str(threads)} if threads else {}  # of numerical libraries other than torch
        start_server(TRAIN, variables | job_environment(), job_data(config))


def is_parallel(launcher: DictConfig) -> bool:
    """Return whether Hydra's launcher runs several jobs at once on this machine."""
    return "joblib" in launcher._target_


def job_environment() -> dict[str, str]:
    """Return the environment of jobs: they import this package, also from a clone that is not installed."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "HYDRA_FULL_ERROR": str(int(FULL_ERROR))}


def job_data(config: DictConfig) -> Any:
    """Return the settings of the data that a job reads."""
    return OmegaConf.to_container(config.data, resolve=True)


def objective(metrics: Mapping[str, Any]) -> float:
    """Return the validation mIoU of the best epoch; the test split is never used for selection."""
    return float(metrics.get("best/val_miou", metrics.get("val/miou", NO_SCORE)))
