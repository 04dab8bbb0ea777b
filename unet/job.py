"""One run in its own folder, and what is left to do of it when it is part of a sweep."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unet.command import AUTO, FULL_ERROR, explain, quoted, say, signal_status
from unet.errors import Interrupted, UserError
from unet.faults import fault
from unet.record import (
    CONFIG,
    METRICS,
    ROOT,
    STATUS,
    claim,
    forget,
    read_json,
    sweep_up,
    write_status,
    write_text,
)
from unet.resume import checkpoint_of, refuse_another, refuse_another_network, to_go_on

OBJECTIVE = "miou"
UNDECIDED = float("nan")
"""The objective of a job that did not finish."""

Job = Callable[[DictConfig, Path], Mapping[str, Any]]


def run_job(job: Job, config: DictConfig) -> float:
    """Run ``job(config, folder)`` in this job's own folder and return its objective, the mIoU of the final evaluation.

    The folder gets ``config.yaml`` and ``status.json``. A single run that fails ends the program with one sentence.
    In a sweep the reason is written down, with the traceback in ``error.txt``, and NaN returned; a job that is done
    already is not run again, and one that was interrupted goes on from its last checkpoint. A signal ends both, saved.
    """
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    if hydra.mode == RunMode.MULTIRUN:
        return one_of_many(job, config, folder, overrides)
    try:
        if config.resume is not None and config.ckpt_path is None:
            return the_same_again(job, config, folder, overrides)
        return attempt(job, config, folder, overrides)
    except Exception as error:
        if FULL_ERROR:
            raise
        say(error)


def the_same_again(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """A single run with ``resume=auto``: begun, taken up where it stopped, or found finished.

    Raises:
        UserError: the folder, which was chosen by hand, holds a run of another configuration.
    """
    if config.resume != AUTO:
        raise UserError(f"resume={config.resume}: expected {AUTO} or null")
    if is_follower():
        config.ckpt_path = checkpoint_of(folder)
        return attempt(job, config, folder, overrides)
    with held(folder):
        before, scores = read_json(folder / STATUS), read_json(folder / METRICS)
        if (folder / CONFIG).is_file():
            refuse_another(folder, config)
        if before.get("state") == "done" and scores:
            print(f"{folder}: this run is finished, mIoU {objective(scores):.4f}; another seed would be another run")
            return objective(scores)
        config.ckpt_path = checkpoint_of(folder)
        if before and config.ckpt_path is None:
            forget(folder)
    if config.ckpt_path is not None:
        print(f"going on from {config.ckpt_path}", flush=True)
    return attempt(job, config, folder, overrides)


def is_follower() -> bool:
    """Is this one of several processes of a run, but the first, which keeps the record?"""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def one_of_many(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """A job of a sweep, as far as it is not done."""
    with held(folder, wait=True):  # by a process that an earlier, killed sweep has left behind
        before = read_json(folder / STATUS)
    settings: dict[str, Any] = settings_of_a_job(config)
    if before.get("state") == "done":
        return objective(read_json(folder / METRICS))
    if before.get("state") == "failed" and not config.retry_failed:
        print(f"failed before: {before['reason']} (retry_failed=true tries again)", file=sys.stderr)
        return UNDECIDED
    last = checkpoint_of(folder)
    if last is not None:
        settings["ckpt_path"] = last
    elif before:
        forget(folder)
    if config.isolate:
        return in_own_process(folder, overrides, settings)
    for key, value in settings.items():
        OmegaConf.update(config, key, value)
    try:
        return attempt(job, config, folder, overrides)
    except Exception as error:
        print(f"failed: {explain(error)}", file=sys.stderr)
        return UNDECIDED


def attempt(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Run the job here and now and write down how it went."""
    if is_follower():
        return objective(job(config, folder))
    with held(folder):
        claim(folder, config.ckpt_path)
        if config.ckpt_path is not None and (folder / CONFIG).is_file():
            refuse_another_network(folder, config)
        sweep_up(folder)
        write_status(folder, "running")
        kept = [override for override in overrides if not override.startswith("ckpt_path=")]
        command = shlex.join(["python", "train.py", *kept])
        write_text(folder / CONFIG, f"# {command}\n{OmegaConf.to_yaml(config, resolve=True)}")
        try:
            with ending_on_sigterm(), told_once():
                metrics = job(config, folder)
        except Interrupted as error:
            write_status(folder, "interrupted", str(error))
            print(f"{error}; {to_go_on(folder, config, kept)}", file=sys.stderr)
            sys.exit(signal_status(error.signum))
        except (KeyboardInterrupt, SystemExit) as error:  # a second SIGINT: Lightning turns it into an exit
            write_status(folder, "interrupted", "stopped at once")
            print(f"stopped at once; {to_go_on(folder, config, kept)}", file=sys.stderr)
            ended = signal_status(signal.SIGTERM)
            sys.exit(ended if getattr(error, "code", None) == ended else signal_status(signal.SIGINT))
        except Exception as error:
            found = fault(error, config, folder)
            reason = f"{found.sentence}; {to_go_on(folder, config, kept, found.overrides)}" if found else explain(error)
            with suppress(OSError):  # of a disk that is full, or gone, the terminal alone hears
                write_status(folder, "failed", reason)
                write_text(folder / "error.txt", traceback.format_exc())
            if found:
                raise UserError(reason) from error
            raise
        write_status(folder, "done")
    return objective(metrics)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """While it lasts, SIGTERM leaves as on an error; a training puts its own handler in place of it, which saves."""
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave as on an error, so that what was started is ended."""
    sys.exit(signal_status(signum))


@contextmanager
def told_once() -> Iterator[None]:
    """While it lasts, a thread that cannot write prints nothing: TensorBoard raises that again at the next event."""
    before = threading.excepthook

    def hear(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, OSError):
            before(failed)

    threading.excepthook = hear
    try:
        yield
    finally:
        threading.excepthook = before


def in_own_process(folder: Path, overrides: Sequence[str], settings: Mapping[str, Any]) -> float:
    """The job as a command of its own: no state of one job reaches the next, and one that is killed ends alone."""
    added = {"hydra.run.dir": str(folder), **settings}
    chosen = [f"{key}={quoted(value) if isinstance(value, str) else value}" for key, value in added.items()]
    environment = {**os.environ, "HYDRA_FULL_ERROR": str(int(FULL_ERROR))}
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *chosen]
    # In a session of its own it is not signalled by the terminal too: exactly one signal reaches it, from here.
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    with passing_signals_to(child) as passed:
        code = child.wait()
    if passed:
        sys.exit(signal_status(passed[0]))
    after = read_json(folder / STATUS)
    if after.get("state") == "done":
        return objective(read_json(folder / METRICS))
    if after.get("state") != "failed":
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        write_status(folder, "failed", f"its process {how}; where that is SIGKILL, memory may have run out")
    return UNDECIDED


def settings_of_a_job(config: DictConfig) -> dict[str, int]:
    """What a sweep decides where the config does not: one device, and one thread where jobs run side by side."""
    settings = {"trainer.devices": 1} if config.trainer.devices == "auto" else {}
    if config.threads is None and "joblib" in HydraConfig.get().launcher._target_:
        settings["threads"] = 1
    return settings


@contextmanager
def passing_signals_to(child: subprocess.Popen) -> Iterator[list[int]]:
    """While it lasts, SIGINT and SIGTERM go to ``child``, which saves and ends; yields those that came."""
    passed: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        passed.append(signum)
        child.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a run's folder: no two processes run one job. The system lets go of it however the process ends.

    With ``lockf``, as a lock of ``flock`` would be inherited by loader processes and outlive a training that is killed.

    Raises:
        UserError: another process holds it and ``wait`` is false.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # as the system has it
            if not wait:
                raise UserError(f"{folder}: another process is running this; wait for it, or stop it") from None
            print(f"{folder}: waiting for the process that is running this", file=sys.stderr)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def objective(metrics: Mapping[str, Any]) -> float:
    """The test split's mIoU, or the validation split's where there is no test split."""
    return next((float(metrics[key]) for key in (f"test/{OBJECTIVE}", f"val/{OBJECTIVE}") if key in metrics), UNDECIDED)
