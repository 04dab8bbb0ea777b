"""One run in its own folder: start or resume it, alone or as a job of a sweep, and record its state."""

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
from unet.io.provenance import ROOT
from unet.io.run_folder import (
    CONFIG,
    METRICS,
    STATUS,
    ensure_new_or_resuming,
    load_run_config,
    reset_run_folder,
    write_status,
)
from unet.runs.cli import FULL_ERROR, program_name
from unet.runs.error_messages import exit_with_error, format_error
from unet.runs.job_server import CAN_FORK, JobServer, fork_job
from unet.runs.resume import check_resumable, check_same_config, last_checkpoint, resume_hint
from unet.runs.run_names import AUTO, INIT_SHA256, as_override, init_digest

NO_SCORE = 0.0
"""The objective of a job that did not finish: the lowest mIoU, since Optuna's sweeper ends a search at NaN."""
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables of a process's rank, in Lightning's order. Source: ``lightning.fabric.utilities.rank_zero``."""
LOCKED_BY = "UNET_FOLDER_LOCKED_BY"
"""Environment variable of a job's own process: the id of the process that locked its folder."""

Job = Callable[[DictConfig, Path], Mapping[str, Any]]


def run_job(job: Job, config: DictConfig) -> float:
    """Run ``job(config, folder)`` in this job's own folder and return its objective, the best validation mIoU.

    Write ``config.yaml`` and ``status.json`` into the folder. A single run that fails ends the program with an error
    message. In a sweep the reason is saved, with the traceback in ``error.txt``, and 0 returned; a finished job is
    not run again, and an interrupted one is resumed from its last checkpoint. A signal ends both after a checkpoint.
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
    """Run a single job; with ``resume=auto`` start it, resume it, or report that it is finished."""
    if config.resume not in (None, AUTO):
        raise UserError(f"resume={config.resume}: expected {AUTO} or null")
    require_common_folder(config)
    # Only the first process writes the state; the others read it and decide as it does.
    with nullcontext() if is_follower() else lock_folder(folder):
        if config.resume is not None and config.ckpt_path is None:
            status, metrics = read_json(folder / STATUS), read_json(folder / METRICS)
            if (folder / CONFIG).is_file():
                check_same_config(folder, config)
            if status.get("state") == "done" and metrics:
                score = objective(metrics)
                print(f"{folder}: this run is finished, validation mIoU {score:.4f}; choose another seed for a new run")
                return score
            config.ckpt_path = last_checkpoint(folder)
            if config.ckpt_path is not None and not is_follower():
                print(f"resuming from {config.ckpt_path}", flush=True)
            elif status and not is_follower():
                reset_run_folder(folder)
        if is_follower():
            return objective(job(config, folder))
        return execute(job, config, folder, overrides)


def is_follower() -> bool:
    """Return whether this is one of several processes of a run and not the first, which writes the run's state."""
    rank = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
    return rank > 0 or int(os.environ.get("NODE_RANK", "0")) > 0


def require_common_folder(config: DictConfig) -> None:
    """Raise UserError where srun or torchrun started several processes that would name different folders."""
    processes = max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    keys = [override.partition("=")[0] for override in HydraConfig.get().overrides.hydra]
    if processes > 1 and config.resume is None and config.ckpt_path is None and "hydra.run.dir" not in keys:
        raise UserError(
            f"{processes} processes train together, and each would name the folder by its own clock; add resume=auto "
            f"or hydra.run.dir=FOLDER"
        )


def run_sweep_job(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Start or resume a job of a sweep unless it is done; wait for another process that runs it."""
    settings: dict[str, Any] = {"trainer.devices": 1} if config.trainer.devices == "auto" else {}
    if config.threads is None and "joblib" in HydraConfig.get().launcher._target_:  # jobs run in parallel
        settings["threads"] = 1
    with lock_folder(folder, wait=True) as running:
        status = read_json(folder / STATUS)
        if status.get("state") == "done":
            return objective(read_json(folder / METRICS))
        if status.get("state") == "failed" and not config.retry_failed:
            print(f"failed before: {status['reason']} (retry_failed=true runs it again)", file=sys.stderr)
            return NO_SCORE
        if (path := last_checkpoint(folder)) is not None:
            settings["ckpt_path"] = path
        elif status:
            reset_run_folder(folder)
        overrides = [*overrides, *(as_override(key, value) for key, value in settings.items())]
        if config.subprocess_per_job:
            arguments = [*overrides, as_override("hydra.run.dir", str(folder))]
            return run_in_subprocess(config, folder, arguments, running)
        for key, value in settings.items():
            OmegaConf.update(config, key, value)
        try:
            return execute(job, config, folder, overrides)
        except Exception as error:
            print(f"failed: {format_error(error)}", file=sys.stderr)
            return NO_SCORE


def execute(job: Job, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Run the job in this process, in a locked folder, and record its state."""
    ensure_new_or_resuming(folder, config.ckpt_path)
    if config.ckpt_path is not None:
        check_resumable(config)
    record_init(config)
    remove_partials(folder)
    overrides = [override for override in overrides if not override.startswith("ckpt_path=")]
    write_status(folder, "running", command=[*program_name("train").split(), *overrides])
    write_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True))
    try:
        # A training has its own handler meanwhile, which saves a checkpoint.
        with handle_signals(exit_on_signal, signal.SIGTERM), mute_writer_threads():
            metrics = job(config, folder)
    except Interrupted as error:
        write_status(folder, "interrupted", str(error))
        print(f"{error}; {resume_hint(folder, config, overrides)}", file=sys.stderr)
        sys.exit(128 + error.signum)
    except (KeyboardInterrupt, SystemExit) as error:  # a second SIGINT: Lightning turns it into an exit
        write_status(folder, "interrupted", "stopped without saving")
        print(f"stopped without saving; {resume_hint(folder, config, overrides)}", file=sys.stderr)
        sigterm = 128 + signal.SIGTERM
        sys.exit(sigterm if getattr(error, "code", None) == sigterm else 128 + signal.SIGINT)
    except Exception as error:
        failure = classify_failure(error, config, folder)
        reason = format_error(error)
        if failure:
            reason = f"{failure.message}; {resume_hint(folder, config, overrides, failure.overrides)}"
        with suppress(OSError):  # where the disk is full or gone, the message is only printed
            write_status(folder, "failed", reason)
            write_text(folder / "error.txt", traceback.format_exc())
        if failure:
            raise UserError(reason) from error
        raise
    write_status(folder, "done")
    return objective(metrics)


def record_init(config: DictConfig) -> None:
    """Record the SHA-256 of the file of ``init`` in the config; a resumed run keeps its own. Raises UserError."""
    if config.init is None:
        return
    if config.ckpt_path is not None:
        digest = load_run_config(Path(config.ckpt_path).resolve().parent.parent).get(INIT_SHA256)
    elif (digest := init_digest(config.init)) is None:
        raise UserError(f"init={config.init}: no such file; expected a checkpoint such as outputs/.../best.ckpt")
    OmegaConf.update(config, INIT_SHA256, digest, force_add=True)


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], Any], *signums: int) -> Iterator[None]:
    """Call ``handler`` on these signals; the previous handlers are restored at the end."""
    handlers = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in handlers.items():
            signal.signal(signum, previous)


def exit_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    """Exit as on an error, so that child processes are ended."""
    sys.exit(128 + signum)


@contextmanager
def mute_writer_threads() -> Iterator[None]:
    """Print no traceback of a thread that cannot write: TensorBoard raises the error again at the next event."""
    original = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, OSError):
            original(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = original


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
        cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        write_status(folder, "failed", f"its process {cause}; after SIGKILL, memory may have run out")
    return NO_SCORE


def start_job(config: DictConfig, arguments: Sequence[str]) -> JobServer | subprocess.Popen:
    """Start the process of a job: forked from the server, or elsewhere than on Linux with a new Python.

    In a session of its own it gets no signal from the terminal: exactly one signal reaches it, from the sweep.
    """
    # It imports this package, also from a clone that is not installed, and none of the current folder (-P).
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path, "HYDRA_FULL_ERROR": str(int(FULL_ERROR)), LOCKED_BY: str(os.getpid())}
    if CAN_FORK:
        data = OmegaConf.to_container(config.data, resolve=True)
        return fork_job("unet.commands.train", arguments, data, os.environ | variables)
    program = ["unet", "train"] if program_name("train").startswith("unet-lab") else ["unet.commands.train"]
    command = [sys.executable, "-P", "-m", *program, *arguments]
    return subprocess.Popen(command, env=os.environ | variables, start_new_session=True)


@contextmanager
def lock_folder(folder: Path, wait: bool = False) -> Iterator[FileLock]:
    """Lock a run's folder, so that no two processes run one job, and yield the lock ``.running``. Raises UserError.

    There are two locks. A process has ``.lock`` from reading the state to the end of the job, and the process that runs
    the job has ``.running``. A sweep takes the first, releases the second for the process of its job, and passes
    its own id to that process. If the sweep is killed, its job has the second until it ends. The system releases both
    when a process ends; filelock closes them in forked processes, such as those of a data loader.
    """
    holder = int(os.environ.get(LOCKED_BY, "-1"))
    is_locked_by_sweep = holder in {process.pid for process in psutil.Process().parents()}  # and the sweep is alive
    locks = [FileLock(folder / name) for name in (".lock", ".running")][is_locked_by_sweep:]
    with ExitStack() as stack:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise UserError(f"{folder}: another process is running this job; wait for it, or stop it") from None
                print(f"{folder}: waiting for the process that is running this job", file=sys.stderr, flush=True)
                lock.acquire()
            stack.callback(lock.release)
        yield locks[-1]


def objective(metrics: Mapping[str, Any]) -> float:
    """Return the validation mIoU of the best epoch; the test split is never used for selection."""
    return float(metrics.get("best/val_miou", metrics.get("val/miou", NO_SCORE)))
