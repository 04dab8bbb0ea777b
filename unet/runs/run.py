"""One run in its own folder, and what is left to do of it when it is part of a sweep."""

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unet.errors import Interrupted, UserError
from unet.failures import classify_failure
from unet.io.atomic import read_json, remove_partials, write_text
from unet.io.run_folder import CONFIG, METRICS, STATUS, ensure_new_or_resuming, reset_run_folder, write_status
from unet.runs.cli import FULL_ERROR, signal_status
from unet.runs.error_messages import exit_with_error, format_error
from unet.runs.resume import check_same_config, check_same_network, last_checkpoint, resume_hint
from unet.runs.run_names import AUTO, as_override

OBJECTIVES = ("best/val_miou", "val/miou")
"""What a sweep compares, in ``metrics.json``: the first that is there."""
NO_SCORE = float("nan")
"""The objective of a job that did not finish."""
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables of a process's rank, in Lightning's order (``lightning.fabric.utilities.rank_zero``)."""
LOCKED_BY = "UNET_FOLDER_LOCKED_BY"
"""Environment variable of a job's own process: the id of the process that has locked its folder."""

Job = Callable[[DictConfig, Path], Mapping[str, Any]]


def run_job(job: Job, config: DictConfig) -> float:
    """Run ``job(config, folder)`` in this job's own folder and return its objective, the best validation mIoU.

    The folder gets ``config.yaml`` and ``status.json``. A single run that fails ends the program with one sentence.
    In a sweep the reason is written down, with the traceback in ``error.txt``, and NaN returned; a job that is done
    already is not run again, and one that was interrupted goes on from its last checkpoint. A signal ends both, saved.
    """
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    if hydra.mode == RunMode.MULTIRUN:
        return run_sweep_job(job, config, folder, overrides)
    try:
        return run_or_resume(job, config, folder, overrides)
    except Exception as error:
        if FULL_ERROR:
            raise
        exit_with_error(error)


def run_or_resume(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Run a single job; with ``resume=auto`` begin it, resume it, or report that it is finished.

    Raises:
        UserError: the folder, which was chosen by hand, holds a run of another configuration.
    """
    if config.resume not in (None, AUTO):
        raise UserError(f"resume={config.resume}: expected {AUTO} or null")
    require_common_folder(config)
    # The first process alone keeps the record; the others read it and decide as it does.
    with nullcontext() if is_follower() else lock_folder(folder):
        if config.resume is not None and config.ckpt_path is None:
            before, scores = read_json(folder / STATUS), read_json(folder / METRICS)
            if (folder / CONFIG).is_file():
                check_same_config(folder, config)
            if before.get("state") == "done" and scores:
                score = objective(scores)
                print(f"{folder}: this run is finished, validation mIoU {score:.4f}; another seed would be another run")
                return score
            config.ckpt_path = last_checkpoint(folder)
            if is_follower():
                pass
            elif config.ckpt_path is not None:
                print(f"going on from {config.ckpt_path}", flush=True)
            elif before:
                reset_run_folder(folder)
        if is_follower():
            return objective(job(config, folder))
        return execute(job, config, folder, overrides)


def is_follower() -> bool:
    """Return whether this is one of several processes of a run, but not the first, which keeps the record."""
    rank = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
    return rank > 0 or int(os.environ.get("NODE_RANK", "0")) > 0


def require_common_folder(config: DictConfig) -> None:
    """Raise UserError where srun or torchrun started several processes that would each name the folder by the clock."""
    processes = max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    given = [override.partition("=")[0] for override in HydraConfig.get().overrides.hydra]
    if processes > 1 and config.resume is None and config.ckpt_path is None and "hydra.run.dir" not in given:
        raise UserError(
            f"{processes} processes train together, and each would name the folder by its own clock; add resume=auto "
            f"or hydra.run.dir=FOLDER"
        )


def run_sweep_job(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Run a job of a sweep as far as it is not done; wait for another process that is running it."""
    settings: dict[str, Any] = job_settings(config)
    with lock_folder(folder, wait=True) as running:
        before = read_json(folder / STATUS)
        if before.get("state") == "done":
            return objective(read_json(folder / METRICS))
        if before.get("state") == "failed" and not config.retry_failed:
            print(f"failed before: {before['reason']} (retry_failed=true tries again)", file=sys.stderr)
            return NO_SCORE
        last = last_checkpoint(folder)
        if last is not None:
            settings["ckpt_path"] = last
        elif before:
            reset_run_folder(folder)
        if config.subprocess_per_job:
            return run_in_subprocess(folder, overrides, settings, running)
        for key, value in settings.items():
            OmegaConf.update(config, key, value)
        try:
            return execute(job, config, folder, overrides)
        except Exception as error:
            print(f"failed: {format_error(error)}", file=sys.stderr)
            return NO_SCORE


def execute(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Run the job here and now, in a folder that is locked, and record how it went."""
    ensure_new_or_resuming(folder, config.ckpt_path)
    if config.ckpt_path is not None and (folder / CONFIG).is_file():
        check_same_network(folder, config)
    remove_partials(folder)
    kept = [override for override in overrides if not override.startswith("ckpt_path=")]
    write_status(folder, "running", command=["python", "train.py", *kept])
    write_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    try:
        with exiting_on_sigterm(), mute_writer_threads():
            metrics = job(config, folder)
    except Interrupted as error:
        write_status(folder, "interrupted", str(error))
        print(f"{error}; {resume_hint(folder, config, kept)}", file=sys.stderr)
        sys.exit(signal_status(error.signum))
    except (KeyboardInterrupt, SystemExit) as error:  # a second SIGINT: Lightning turns it into an exit
        write_status(folder, "interrupted", "stopped at once")
        print(f"stopped at once; {resume_hint(folder, config, kept)}", file=sys.stderr)
        ended = signal_status(signal.SIGTERM)
        sys.exit(ended if getattr(error, "code", None) == ended else signal_status(signal.SIGINT))
    except Exception as error:
        found = classify_failure(error, config, folder)
        reason = (
            f"{found.message}; {resume_hint(folder, config, kept, found.overrides)}" if found else format_error(error)
        )
        with suppress(OSError):  # of a disk that is full, or gone, the terminal alone hears
            write_status(folder, "failed", reason)
            write_text(folder / "error.txt", traceback.format_exc())
        if found:
            raise UserError(reason) from error
        raise
    write_status(folder, "done")
    return objective(metrics)


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Exit on SIGTERM as on an error, while it lasts; a training puts its own handler in its place, which saves."""
    before = signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave as on an error, so that what was started is ended."""
    sys.exit(signal_status(signum))


@contextmanager
def mute_writer_threads() -> Iterator[None]:
    """Print nothing of a thread that cannot write, while it lasts: TensorBoard raises that again at the next event."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, OSError):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def run_in_subprocess(folder: Path, overrides: Sequence[str], settings: Mapping[str, Any], running: FileLock) -> float:
    """Run the job as a command of its own: no state of one job reaches the next, and one that is killed ends alone.

    ``running`` is released for that process; the folder's other lock stays with this one.
    """
    added = {"hydra.run.dir": str(folder), **settings}
    chosen = [as_override(key, value) for key, value in added.items()]
    environment = {**os.environ, "HYDRA_FULL_ERROR": str(int(FULL_ERROR)), LOCKED_BY: str(os.getpid())}
    command = [sys.executable, "-m", "unet.commands.train", *overrides, *chosen]
    running.release()
    # In a session of its own it is not signalled by the terminal too: exactly one signal reaches it, from here.
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    with forward_signals(child) as forwarded:
        code = child.wait()
    if forwarded:
        sys.exit(signal_status(forwarded[0]))
    running.acquire()  # where the job of a sweep that was killed had started meanwhile, its state is the one to read
    after = read_json(folder / STATUS)
    if after.get("state") == "done":
        return objective(read_json(folder / METRICS))
    if after.get("state") != "failed":
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        write_status(folder, "failed", f"its process {how}; where that is SIGKILL, memory may have run out")
    return NO_SCORE


def job_settings(config: DictConfig) -> dict[str, int]:
    """Return what a sweep decides where the config does not: one device, and one thread where jobs run in parallel."""
    settings = {"trainer.devices": 1} if config.trainer.devices == "auto" else {}
    if config.threads is None and "joblib" in HydraConfig.get().launcher._target_:
        settings["threads"] = 1
    return settings


@contextmanager
def forward_signals(child: subprocess.Popen) -> Iterator[list[int]]:
    """Send SIGINT and SIGTERM on to ``child``, which saves and ends, while it lasts; yield those that came."""
    forwarded: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        forwarded.append(signum)
        if signum == signal.SIGTERM or os.name != "nt":  # on Windows a Ctrl-C has reached the child already
            child.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield forwarded
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def lock_folder(folder: Path, wait: bool = False) -> Iterator[FileLock]:
    """Lock a run's folder, so that no two processes run one job, and yield the lock of running it.

    There are two locks. ``.lock`` is held from the decision what is to be done to the end of the job, ``.running`` by
    the process that runs the job. A sweep holds the first, releases the second for the process of its job, and tells
    that process that the first is held. Where the sweep is killed, its job still holds the second until it ends. The
    system releases both however a process ends; filelock closes them in forked processes, such as those of a loader.

    Raises:
        UserError: another process holds it and ``wait`` is false.
    """
    names = (".running",) if is_locked_by_parent() else (".lock", ".running")
    locks = [FileLock(folder / name) for name in names]
    with ExitStack() as stack:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise UserError(f"{folder}: another process is running this; wait for it, or stop it") from None
                print(f"{folder}: waiting for the process that is running this", file=sys.stderr, flush=True)
                lock.acquire()
            stack.callback(lock.release)
        yield locks[-1]


def is_locked_by_parent() -> bool:
    """Return whether the sweep that started this process is alive: it has locked the folder and decided."""
    holder = os.environ.get(LOCKED_BY)
    return holder is not None and int(holder) in {process.pid for process in psutil.Process().parents()}


def objective(metrics: Mapping[str, Any]) -> float:
    """Return the validation mIoU of the best epoch: the test split is never selected on."""
    return next((float(metrics[key]) for key in OBJECTIVES if key in metrics), NO_SCORE)
