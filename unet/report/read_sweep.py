"""Read the runs of a sweep from their folders."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unet.errors import UserError
from unet.io.atomic import read_json
from unet.io.config_keys import flatten
from unet.io.run_folder import CONFIG, METRICS, STATUS, SWEEP

COMMAND = ["python", "train.py"]


@dataclass(frozen=True)
class Run:
    """One job of a sweep.

    Attributes:
        folder: where it is, or would be.
        state: ``pending``, ``running``, ``done``, ``failed``, ``interrupted``; ``missing`` without a trace of it,
            ``unreadable`` where a file of it is broken.
        reason: why it is not done.
        command: that started it.
        overrides: what the command set, key by key.
        config: every value by its dotted key; empty where the run left no config.
        metrics: what ``metrics.json`` holds.
    """

    folder: Path
    state: str
    reason: str = ""
    command: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> int | None:
        sources = (values.get("seed") for values in (self.config, self.metrics, self.overrides))
        return next((seed for seed in sources if isinstance(seed, int)), None)

    def setting(self, key: str) -> Any:
        """Return a value of the config; of a run without one, that of its command."""
        return (self.config or self.overrides).get(key)


@dataclass(frozen=True)
class Sweep:
    """The folder, the commands that ran in it (if known), and its runs, planned ones included."""

    folder: Path
    commands: list[str]
    runs: list[Run]


def read(folder: Path) -> Sweep:
    """Read every run of a sweep's folder, those of its ``sweep.json`` first and in its order.

    Raises:
        UserError: no such folder, a run's own folder, or no runs in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the folder of a sweep, with one folder a run in it")
    if (folder / METRICS).is_file() or (folder / STATUS).is_file():
        raise UserError(f"{folder} is the folder of one run; give the folder above it, with one folder a run in it")
    try:
        plan = read_json(folder / SWEEP)
        expected = {name: [str(word) for word in overrides] for name, overrides in plan.get("jobs", {}).items()}
        commands = [str(command) for command in plan.get("commands", [])]
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder / SWEEP}: cannot be read ({error!r}); expected {{'commands': [...], 'jobs': {{FOLDER: "
            "[OVERRIDE, ...], ...}}; repair it, or remove it and the runs that are there will be reported"
        ) from None
    leaves = (CONFIG, STATUS, METRICS)
    found = [path.name for path in folder.iterdir() if any((path / leaf).is_file() for leaf in leaves)]
    names = [*expected, *(name for name in sorted(found, key=natural_key) if name not in expected)]
    if not names:
        raise UserError(f"{folder}: no runs in it; expected one folder a run, each with {CONFIG} and {STATUS}")
    return Sweep(folder, commands, [read_run(folder / n, expected.get(n, ())) for n in names])


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a key for natural order: ``width=8`` before ``width=16``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def read_run(folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Read one run; ``overrides`` are those of the sweep's plan."""
    broken: list[str] = []

    def load(name: str, read_file: Callable[[Path], Any], empty: Any) -> Any:
        try:
            return read_file(folder / name)
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            broken.append(f"{name} is broken: {' '.join(str(error).split())}")
            return empty

    status: dict[str, Any] = load(STATUS, read_json, {})
    metrics: dict[str, Any] = load(METRICS, read_json, {})
    config: dict[str, Any] = load(CONFIG, read_config, {})
    saved = status.get("command")
    command = [str(word) for word in saved] if isinstance(saved, list) and saved else load(CONFIG, command_comment, [])
    words = [word for word in command if "=" in word] or list(overrides)
    state = str(status.get("state") or ("done" if metrics else "missing"))
    reason = str(status.get("reason", ""))
    if broken:
        state, reason = "unreadable", "; ".join(broken)
    elif state == "missing":
        reason = "planned, but not started" if overrides else "no status and no metrics"
    elif state == "done" and not metrics:
        state, reason = "unreadable", f"marked done, without {METRICS}"
    return Run(folder, state, reason, shlex.join(command or [*COMMAND, *overrides]), parsed(words), config, metrics)


def command_comment(path: Path) -> list[str]:
    """Return the command that older runs have as a comment at the head of their config."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return shlex.split(lines[0].removeprefix("# ")) if lines and lines[0].startswith("# ") else []


def read_config(path: Path) -> dict[str, Any]:
    """Return a config's values by dotted key; none where there is no file."""
    if not path.exists():
        return {}
    config = OmegaConf.create(path.read_text(encoding="utf-8"))
    if not isinstance(config, DictConfig):
        raise ValueError("it holds no mapping")
    values: Any = OmegaConf.to_container(config, resolve=True)
    return flatten(values, operators=True)


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Hydra's overrides as values by key; what its grammar does not know is left out."""
    parser, values = OverridesParser.create(), {}
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            continue
        values[override.key_or_group] = override.value()
    return values


def jsonable(value: Any) -> str:
    """Return text as it is, anything else as JSON, so that numbers keep all digits."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
