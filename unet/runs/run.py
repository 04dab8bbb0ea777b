"""One run in its own folder: start or resume it, alone or as a job of a sweep, and record its state."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unet.errors import Interrupted, UserError
from unet.failures import classify_failure
from unet.io.atomic import read_json, remove_partials, write_text
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
from unet.runs.folder_lock import lock_folder
from unet.runs.job_process import NO_SCORE, is_parallel, objective, run_in_subprocess
from unet.runs.resume import check_resumable, check_same_config, last_checkpoint, resume_hint
from unet.runs.run_names import AUTO, INIT_SHA256, as_override, init_digest
from unet.runs.signals import exit_on_signal, handle_signals

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables of a process's rank, in Lightning's order. Source: ``lightning.fabric.utilities.rank_zero``."""

Train = Callable[[DictConfig, Path], Mapping[str, Any]]
"""A function that trains a run of this config into this folder and returns its metrics."""


def run_job(train: Train, config: DictConfig) -> float:
    """Run ``train(config, folder)`` in this job's own folder and return its objective, the best validation mIoU.

    Write ``config.yaml`` and ``status.json`` into the folder. A single run that fails ends the program with an error
    message. In a sweep the reason is saved, with the traceback in ``error.txt``, and 0 returned; a finished job is
    not run again, and an interrupted one is resumed from its last checkpoint. A signal ends both after a checkpoint.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # not resolved: numbers would become texts
    if hydra.mode == RunMode.MULTIRUN:
        return run_sweep_job(train, config, folder, overrides)
    try:
        return run_or_resume(train, config, folder, overrides)
    except Exception as error:
        if FULL_ERROR:
            raise
        exit_with_error(error)


def run_or_resume(train: Train, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
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
            return objective(train(config, folder))
        return execute(train, config, folder, overrides)


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


def run_sweep_job(train: Train, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Start or resume a job of a sweep unless it is done; wait for another process that runs it."""
    settings: dict[str, Any] = {"trainer.devices": 1} if config.trainer.devices == "auto" else {}
    if config.threads is None and is_parallel(HydraConfig.get().launcher):
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
            return execute(train, config, folder, overrides)
        except Exception as error:
            print(f"failed: {format_error(error)}", file=sys.stderr)
            return NO_SCORE


def execute(train: Train, config: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
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
            metrics = train(config, folder)
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
