"""The checks before a run is resumed, and the command that resumes it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.errors import UserError
from unet.io.run_folder import CHECKPOINTS, LAST, SWEEP, load_run_config
from unet.runs.cli import program_name
from unet.runs.run_names import AUTO, as_override, identity_config


def check_same_config(folder: Path, config: DictConfig) -> None:
    """Raise UserError, naming the first key that differs, unless ``folder`` holds a run of this configuration."""
    for key, saved, new in config_diff(folder, config):
        raise UserError(
            f"{folder} holds a run with {key}={saved}, this one has {key}={new}; choose another hydra.run.dir, or use "
            f"the values of that run"
        )


def check_same_network(folder: Path, config: DictConfig) -> None:
    """Raise UserError unless a checkpoint of the run in ``folder`` fits the network of the config."""
    for key, saved, new in config_diff(folder, config):
        if key.startswith("model."):
            raise UserError(
                f"ckpt_path={config.ckpt_path}: its run has {key}={saved}, this one has {key}={new}; resume with the "
                f"same network, or start a new run without ckpt_path"
            )


def config_diff(folder: Path, config: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, saved value and new value of what differs between the run in ``folder`` and ``config``."""
    saved, new = identity_config(load_run_config(folder)), identity_config(config)
    for key in new | saved:
        if new.get(key) != saved.get(key):
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
