"""Where a run that ended before its time goes on, and the command that makes it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unet.command import AUTO, what
from unet.errors import UserError
from unet.record import CHECKPOINTS, CONFIG, LAST


def refuse_another(folder: Path, config: DictConfig) -> None:
    """Raise UserError, naming the first key that differs, unless ``folder`` holds a run of this configuration."""
    there, here = (dict(leaves(what(found))) for found in (OmegaConf.load(folder / CONFIG), config))  # type: ignore[arg-type]
    for key in here | there:
        if here.get(key) != there.get(key):
            raise UserError(
                f"{folder} holds a run with {key}={there.get(key)}, this one has {key}={here.get(key)}; choose another "
                f"hydra.run.dir, or leave it out: with resume={AUTO} the configuration decides"
            )


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is no mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def checkpoint_of(folder: Path) -> str | None:
    """Where a run in ``folder`` can go on."""
    last = folder / CHECKPOINTS / LAST
    return str(last) if last.is_file() else None


def to_go_on(folder: Path, config: DictConfig, overrides: Sequence[str], more: Sequence[str] = ()) -> str:
    """The command with which a run that ended before its time goes on, with ``more`` overrides where it has to."""
    last = checkpoint_of(folder)
    if config.resume == AUTO and not more:
        place = [override for override in HydraConfig.get().overrides.hydra if override.startswith("hydra.run.dir=")]
        return f"the same command goes on: {shlex.join(['python', 'train.py', *overrides, *place])}"
    if last is None:
        return "no epoch was finished, so begin again"
    chosen = [override for override in overrides if not override.startswith("resume=")]
    return f"go on with: {shlex.join(['python', 'train.py', *chosen, *more, f'ckpt_path={last}'])}"
