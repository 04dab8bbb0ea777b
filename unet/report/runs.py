"""The runs of a sweep, read back from their folders: what was set, how it ended, what was measured."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unet.errors import UserError
from unet.record import METRICS, STATUS, read_json

CONFIG, SWEEP, CONFUSIONS, PICTURE = "config.yaml", "sweep.json", "confusions.npz", "predictions.png"
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
        return next((int(s["seed"]) for s in (self.config, self.metrics, self.overrides) if "seed" in s), None)

    def setting(self, key: str) -> Any:
        """A value of the config; of a run that left none, what its command says."""
        return (self.config or self.overrides).get(key)


@dataclass(frozen=True)
class Sweep:
    """Attributes: the folder, the command that started it (may be empty), and its runs, expected ones included."""

    folder: Path
    command: str
    runs: list[Run]


def read(folder: Path) -> Sweep:
    """Every run of a sweep's folder, those of its ``sweep.json`` first and in its order.

    Raises:
        UserError: no such folder, a run's own folder, or no runs in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the folder of a sweep, with one folder a run in it")
    if (folder / METRICS).is_file() or (folder / STATUS).is_file():
        raise UserError(f"{folder} is the folder of one run; give the folder above it, with one folder a run in it")
    try:
        plan = read_json(folder / SWEEP)
        expected = {job["folder"]: [str(word) for word in job.get("overrides", [])] for job in plan.get("jobs", [])}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder / SWEEP}: cannot be read ({error!r}); expected {{'command': ..., 'jobs': [{{'folder': ..., "
            "'overrides': [...]}, ...]}; repair it, or remove it and the runs that are there will be reported"
        ) from None
    leaves = (CONFIG, STATUS, METRICS)
    found = sorted(path.name for path in folder.iterdir() if any((path / leaf).is_file() for leaf in leaves))
    names = [*expected, *(name for name in found if name not in expected)]
    if not names:
        raise UserError(f"{folder}: no runs in it; expected one folder a run, each with {CONFIG} and {STATUS}")
    return Sweep(folder, str(plan.get("command", "")), [read_run(folder / n, expected.get(n, ())) for n in names])


def read_run(folder: Path, overrides: Sequence[str] = ()) -> Run:
    """One run, whatever it left; ``overrides`` are what a sweep's plan says of it."""
    command = shlex.join([*COMMAND, *overrides])
    try:
        status = read_json(folder / STATUS)
        metrics = read_json(folder / METRICS)
        config: dict[str, Any] = {}
        if (folder / CONFIG).is_file():
            text = (folder / CONFIG).read_text(encoding="utf-8")
            if text.startswith("# "):
                command = text.splitlines()[0].removeprefix("# ")
            loaded = OmegaConf.create(text)
            if not isinstance(loaded, DictConfig):
                raise ValueError(f"{CONFIG} holds no mapping")
            config = flatten(OmegaConf.to_container(loaded, resolve=True))  # type: ignore[arg-type]
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        sentence = " ".join(str(error).split())
        return Run(folder, "unreadable", f"a file in it is broken: {sentence}", command, parsed(overrides))
    state = status.get("state") or ("done" if metrics else "missing")
    reason = status.get("reason", "")
    if state == "missing":
        reason = "planned, and nothing of it is there" if overrides else "no status and no metrics"
    if state == "done" and not metrics:
        state, reason = "unreadable", f"marked done, without {METRICS}"
    words = [word for word in shlex.split(command) if "=" in word]
    return Run(folder, state, reason, command, parsed(words or overrides), config, metrics)


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


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key. Below the top a mapping with a ``name`` is one choice, such as an operator's options."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and (not prefix or "name" not in value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def confusions(run: Run) -> tuple[list[str], np.ndarray] | None:
    """Names of the evaluated images and their counts (N, K, K), row truth, column prediction; None without the file.

    Raises:
        UserError: a file that holds something else.
    """
    path = run.folder / CONFUSIONS
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            names, counts = [str(name) for name in stored["names"]], stored["counts"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected names and counts; remove it to do without"
        ) from None
    if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or len(names) != len(counts):
        raise UserError(
            f"{path}: {len(names)} names and counts of shape {counts.shape}; expected N names and (N, K, K); remove it "
            "to do without"
        )
    return names, counts


def jsonable(value: Any) -> str:
    """A value for a cell: text as it is, anything else as JSON, so that numbers keep all their digits."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
