"""The files of a run's folder: its config, its state, its checkpoints."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unet.errors import UserError
from unet.io.atomic import read_json, write_json
from unet.io.config_keys import rename_old_keys

CONFIG, STATUS, METRICS = "config.yaml", "status.json", "metrics.json"
CHECKPOINTS, CONFUSIONS = "checkpoints", "confusions.npz"
BEST, LAST = "best.ckpt", "last.ckpt"
SWEEP = "sweep.json"
"""In a sweep's folder: the commands that ran there, and the overrides of every job by the name of its folder."""


def load_run_config(folder: Path) -> DictConfig:
    """Return the resolved config of a run. Raises UserError where it cannot be read."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the folder of a finished run, which holds {METRICS}")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); expected the config of a run"
        ) from None
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: expected the config of a run, found a list")
    rename_old_keys(config)
    return config


def ensure_new_or_resuming(folder: Path, ckpt_path: str | None) -> None:
    """Raise UserError where ``folder`` holds a run, unless ``ckpt_path`` is a checkpoint of it."""
    if ckpt_path is not None and not Path(ckpt_path).is_file():
        raise UserError(f"ckpt_path={ckpt_path}: no such file; expected a checkpoint such as outputs/.../last.ckpt")
    resuming = ckpt_path is not None and folder.resolve() in Path(ckpt_path).resolve().parents
    if not resuming and ((folder / METRICS).exists() or any((folder / CHECKPOINTS).glob("*.ckpt"))):
        raise UserError(
            f"{folder} already holds a run; choose another hydra.run.dir, or resume it with "
            f"{shlex.quote(f'ckpt_path={folder / CHECKPOINTS / LAST}')}"
        )


def reset_run_folder(folder: Path) -> None:
    """Remove the files of a run without a checkpoint, and no others, so that it can start again."""
    for path in [*folder.glob("events.out.tfevents.*"), folder / "error.txt"]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def write_status(folder: Path, state: str, reason: str = "", command: Sequence[str] = ()) -> None:
    """Write the state of a run: ``pending``, ``running``, ``done``, ``failed`` or ``interrupted``.

    ``command`` are the words that started the run, by default those saved before.
    """
    command = list(command) or read_json(folder / STATUS).get("command", [])
    write_json(folder / STATUS, {"state": state, "reason": reason, "command": command})


def format_duration(seconds: float) -> str:
    """Return minutes and seconds: ``75`` -> ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
