"""The checks before a run is resumed, and the command that resumes it."""

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.errors import UserError
from unet.io.atomic import read_json
from unet.io.run_folder import CHECKPOINTS, CONFIG, LAST, METRICS, STATUS, SWEEP, load_run_config
from unet.runs.cli import program_name
from unet.runs.run_names import AUTO, INIT_SHA256, as_override, identity_config

CHANGEABLE = ("data.num_workers", "data.cache_gb", "data.eval_batch_size", "data.eval_tile", "data.eval_overlap")
"""Keys that a resumed run may change, as messages advise when memory runs out: they do not change the training."""
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")


def check_same_config(folder: Path, config: DictConfig) -> None:
    """Raise UserError, naming the first key that differs, unless ``folder`` holds a run of this configuration."""
    for key, saved, new in config_diff(folder, config):
        raise UserError(
            f"{folder} holds a run with {key}={saved}, this one has {key}={new}; choose another hydra.run.dir, or use "
            f"the values of that run"
        )


def check_resumable(config: DictConfig) -> None:
    """Raise UserError unless the run of ``ckpt_path`` is unfinished and has this configuration.

    ``trainer.max_epochs`` and ``trainer.max_steps`` may be raised with a constant learning rate. Any other schedule was
    computed for the saved values, and torch restores it with the optimizer.
    """
    ckpt_path = Path(config.ckpt_path)
    folder = ckpt_path.resolve().parent.parent
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"ckpt_path={ckpt_path}: no {CONFIG} of its run in {folder}; a run is resumed from its own folder, "
            f"RUN/{CHECKPOINTS}/{LAST}; to start a new run from the weights, use {init_hint(ckpt_path)}"
        )
    changes = {key: (saved, new) for key, saved, new in config_diff(folder, config)}
    longer = {key: changes.pop(key) for key in LENGTHS if key in changes}
    if changes:
        key, (saved, new) = next(iter(changes.items()))
        more = f" (and {len(changes) - 1} more: {', '.join([*changes][1:4])})" if len(changes) > 1 else ""
        raise UserError(
            f"ckpt_path={ckpt_path}: its run has {key}={saved}, this one has {key}={new}{more}; resume with the "
            f"values of that run, or start a new run from its weights with {init_hint(ckpt_path)}"
        )
    if is_finished(folder):
        raise UserError(
            f"ckpt_path={ckpt_path}: its run is finished, and so is its learning-rate schedule; to train its weights "
            f"further, start a new run with {init_hint(ckpt_path)}"
        )
    for key, (saved, new) in longer.items():
        if config.optim.schedule != "constant" or not is_longer(saved, new):
            raise UserError(
                f"ckpt_path={ckpt_path}: its run has {key}={saved}, this one has {key}={new}; a resumed run may only "
                f"raise it, and only with optim.schedule=constant; resume with {key}={saved}, then start a new run "
                f"from its weights with init"
            )


def init_hint(ckpt_path: Path) -> str:
    """Return the override that starts a new run from a checkpoint's weights, quoted for a shell."""
    return f"{shlex.quote(as_override('init', str(ckpt_path)))} instead of ckpt_path"


def is_finished(folder: Path) -> bool:
    """Return whether the run in ``folder`` has ended; a run of an older version has no state."""
    return read_json(folder / STATUS).get("state", "done" if (folder / METRICS).exists() else "") == "done"


def is_longer(saved: int | None, new: int | None) -> bool:
    """Return whether a number of epochs or steps is not smaller than another; -1 and null are unlimited."""
    before, now = (math.inf if limit is None or limit == -1 else limit for limit in (saved, new))
    return now >= before


def config_diff(folder: Path, config: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, saved value and new value of what differs between the run in ``folder`` and ``config``."""
    saved, new = identity_config(load_run_config(folder)), identity_config(config)
    for key in new | saved:
        is_deleted = key == INIT_SHA256 and new.get(key) is None  # its weights are not read again
        if new.get(key) != saved.get(key) and not key.startswith(CHANGEABLE) and not is_deleted:
            yield key, saved.get(key), new.get(key)


def last_checkpoint(folder: Path) -> str | None:
    """Return the checkpoint from which a run in ``folder`` can be resumed; None where there is none."""
    path = folder / CHECKPOINTS / LAST
    return str(path) if path.is_file() else None


def resume_hint(folder: Path, config: DictConfig, overrides: Sequence[str], changes: Sequence[str] = ()) -> str:
    """Return the command that resumes a run that ended early.

    ``changes`` are overrides that would avert the failure. They are in the command unless the run's folder is named by
    its configuration (``resume=auto``, a sweep's job): with another it would be another run.
    """
    path = last_checkpoint(folder)
    if config.resume == AUTO:
        hydra = HydraConfig.get().overrides
        keys = {override.lstrip("+").partition("=")[0] for override in [*hydra.hydra, *hydra.task]}
        args = [as_override("hydra.run.dir", str(folder))] if keys & {"hydra.run.dir", "ckpt_path"} else []
        return f"the same command resumes it: {program_name('train')} {shlex.join([*overrides, *args])}"
    if path is None:
        return "no epoch was finished, so start it again"
    args = [override for override in overrides if not override.startswith("resume=")]
    args += [] if (folder.parent / SWEEP).is_file() else changes
    return f"to resume: {program_name('train')} {shlex.join([*args, as_override('ckpt_path', path)])}"
