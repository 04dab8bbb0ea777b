"""Where a run that ended before its time goes on, and the command that makes it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.errors import UserError
from unet.io.run_folder import CHECKPOINTS, LAST, SWEEP, load_run_config
from unet.runs.run_names import AUTO, as_override, identity_config


def check_same_config(folder: Path, config: DictConfig) -> None:
    """Raise UserError, naming the first key that differs, unless ``folder`` holds a run of this configuration."""
    for key, there, here in config_diff(folder, config):
        raise UserError(
            f"{folder} holds a run with {key}={there}, this one has {key}={here}; choose another hydra.run.dir, or add "
            f"what it was last run with"
        )


def check_same_network(folder: Path, config: DictConfig) -> None:
    """Raise UserError unless a checkpoint of the run in ``folder`` fits the network that the config asks for."""
    for key, there, here in config_diff(folder, config):
        if key.startswith("model."):
            raise UserError(
                f"ckpt_path={config.ckpt_path}: a run with {key}={there}, this one has {key}={here}, and a run goes on "
                f"with the network that it began with; leave that out, or begin a new run without ckpt_path"
            )


def config_diff(folder: Path, config: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """Key, value there and value here, of what the run in ``folder`` and ``config`` do not have alike."""
    there, here = identity_config(load_run_config(folder)), identity_config(config)
    for key in here | there:
        if here.get(key) != there.get(key):
            yield key, there.get(key), here.get(key)


def last_checkpoint(folder: Path) -> str | None:
    """Where a run in ``folder`` can go on."""
    last = folder / CHECKPOINTS / LAST
    return str(last) if last.is_file() else None


def resume_hint(folder: Path, config: DictConfig, overrides: Sequence[str], changes: Sequence[str] = ()) -> str:
    """Return the command that resumes a run that ended early.

    ``changes`` are overrides that would avert the failure. They are in the command unless the run's folder is named by
    its configuration (``resume=auto``, a sweep's job): with another it would be another run.
    """
    last = last_checkpoint(folder)
    if config.resume == AUTO:
        given = HydraConfig.get().overrides
        chosen = {one.lstrip("+").partition("=")[0] for one in [*given.hydra, *given.task]}
        elsewhere = chosen & {"hydra.run.dir", "ckpt_path"}
        place = [as_override("hydra.run.dir", str(folder))] if elsewhere else []
        return f"the same command goes on: {shlex.join(['python', 'train.py', *overrides, *place])}"
    if last is None:
        return "no epoch was finished, so begin again"
    chosen = [override for override in overrides if not override.startswith("resume=")]
    changed = [] if (folder.parent / SWEEP).is_file() else changes
    return f"go on with: {shlex.join(['python', 'train.py', *chosen, *changed, as_override('ckpt_path', last)])}"
