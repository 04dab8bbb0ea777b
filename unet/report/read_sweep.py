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
from unet.io.config_keys import FOLD, flatten
from unet.io.run_folder import CONFIG, METRICS, STATUS, SWEEP

Replicate = int | tuple[int, int]
"""A seed, or a fold and a seed: arms are compared at equal ones."""
COMMAND = ["python", "train.py"]


@dataclass(frozen=True)
class Run:
    """One job of a sweep; the folder of a planned one may not exist.

    Attributes:
        state: ``pending``, ``running``, ``done``, ``failed``, ``interrupted``; ``missing`` if the run never started,
            ``unreadable`` if one of its files is broken.
        overrides: the values that the command set, by key.
        config: all values by dotted key; empty without a config file.
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

    @property
    def fold(self) -> int | None:
        fold = self.setting(FOLD)
        return fold if isinstance(fold, int) else None

    @property
    def replicate(self) -> Replicate | None:
        """Return what identifies the run within its arm: the seed, or fold and seed; None without a seed."""
        return self.seed if self.fold is None or self.seed is None else (self.fold, self.seed)

    @property
    def published_command(self) -> str:
        """Return the command without the keys of Hydra, and with PATH for the path of the data."""
        words = [word for word in shlex.split(self.command) if not word.startswith("hydra.")]
        return shlex.join("data.root=PATH" if word.startswith("data.root=") else word for word in words)

    def setting(self, key: str) -> Any:
        """Return a value of the config, or of the command if the run has no config."""
        return (self.config or self.overrides).get(key)


@dataclass(frozen=True)
class Sweep:
    """A folder, the commands that ran in it (if known), its runs, including planned ones, and the questions.

    Attributes:
        questions: the reference level of every key that the sweep asks about; empty if it named none.
        is_search: whether jobs were chosen by the results of earlier ones.
    """

    folder: Path
    commands: list[str]
    runs: list[Run]
    questions: Mapping[str, Any] = field(default_factory=dict)
    is_search: bool = False


def read_sweep(folder: Path) -> Sweep:
    """Read every run of a sweep's folder, first those of its ``sweep.json``, in its order.

    Raises:
        UserError: the folder does not exist, is the folder of a single run, or has no runs in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the folder of a sweep, with one folder per run")
    if (folder / METRICS).is_file() or (folder / STATUS).is_file():
        raise UserError(f"{folder} is the folder of one run; expected the folder above it, with one folder per run")
    try:
        plan = read_json(folder / SWEEP)
        jobs = {name: [str(override) for override in overrides] for name, overrides in plan.get("jobs", {}).items()}
        commands = [str(command) for command in plan.get("commands", [])]
        questions = dict(plan.get("questions", {}))
        is_search = plan.get("search") is True
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder / SWEEP}: cannot be read ({error!r}); expected {{'commands': [...], 'jobs': {{FOLDER: "
            "[OVERRIDE, ...], ...}}; repair it, or remove it to report on the existing runs"
        ) from None
    files = (CONFIG, STATUS, METRICS)
    existing = [path.name for path in folder.iterdir() if any((path / file).is_file() for file in files)]
    names = [*jobs, *(name for name in sorted(existing, key=natural_key) if name not in jobs)]
    if not names:
        raise UserError(f"{folder}: no runs in it; expected one folder per run, each with {CONFIG} and {STATUS}")
    return Sweep(folder, commands, [read_run(folder / n, jobs.get(n, ())) for n in names], questions, is_search)


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return a key for natural order: ``width=8`` before ``width=16``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def read_run(folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Read one run; ``overrides`` are those of the sweep's plan."""
    problems: list[str] = []

    def load(name: str, read_file: Callable[[Path], Any], empty: Any) -> Any:
        try:
            return read_file(folder / name)
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            problems.append(f"{name} is broken: {' '.join(str(error).split())}")
            return empty

    status: dict[str, Any] = load(STATUS, read_json, {})
    metrics: dict[str, Any] = load(METRICS, read_json, {})
    config: dict[str, Any] = load(CONFIG, read_config, {})
    saved = status.get("command")
    command = [str(word) for word in saved] if isinstance(saved, list) and saved else load(CONFIG, command_comment, [])
    values = parse_overrides([word for word in command if "=" in word] or list(overrides))
    state = str(status.get("state") or ("done" if metrics else "missing"))
    reason = str(status.get("reason", ""))
    if problems:
        state, reason = "unreadable", "; ".join(problems)
    elif state == "missing":
        reason = "planned, but not started" if overrides else "it has no status.json and no metrics.json"
    elif state == "done" and not metrics:
        state, reason = "unreadable", f"marked as done, but without {METRICS}"
    return Run(folder, state, reason, shlex.join(command or [*COMMAND, *overrides]), values, config, metrics)


def command_comment(path: Path) -> list[str]:
    """Return the command from the first line of a config, where older runs have it as a comment."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return shlex.split(lines[0].removeprefix("# ")) if lines and lines[0].startswith("# ") else []


def read_config(path: Path) -> dict[str, Any]:
    """Return a config's values by dotted key; empty without a file."""
    if not path.exists():
        return {}
    config = OmegaConf.create(path.read_text(encoding="utf-8"))
    if not isinstance(config, DictConfig):
        raise ValueError("it is not a mapping")
    values: Any = OmegaConf.to_container(config, resolve=True)
    return flatten(values, operators=True)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of Hydra overrides by key, without those that follow from other keys (``${seed}``).

    Texts that are no overrides are ignored.
    """
    parser, values = OverridesParser.create(), {}
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            continue
        value = override.value()
        if not (isinstance(value, str) and "${" in value):
            values[override.key_or_group] = value
    return values


def to_json(value: Any) -> str:
    """Return text unchanged, anything else as JSON, which keeps all digits of a number."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
