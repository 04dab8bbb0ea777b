"""The jobs of a sweep: which there are, how far each is, and one table at the end."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from unet.command import say
from unet.errors import UserError
from unet.job import OBJECTIVE, objective
from unet.record import METRICS, STATUS, minutes, read_json, write_json, write_status

SWEEP = "sweep.json"
"""In a sweep's folder: the command and every job's overrides, by the name of its folder."""


class Sweep(Callback):
    """Hydra callback around a sweep: its jobs are written down before the first starts, and shown after the last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self.begin(config)
        except Exception as error:  # Hydra would only warn, and go on
            say(error)

    def begin(self, config: DictConfig) -> None:
        keep_to_one_device(config)
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.select(config, "hydra.sweep.subdir")  # notes which keys are swept; a job's own config cannot tell
        jobs = {name_of(config, overrides): overrides for overrides in combinations(config)}
        folder.mkdir(parents=True, exist_ok=True)
        known = read_json(folder / SWEEP)
        write_json(
            folder / SWEEP,
            {
                "commands": list(dict.fromkeys([*known.get("commands", []), command_of(config)])),
                "jobs": known.get("jobs", {}) | jobs,
            },
        )
        for name in jobs:
            (folder / name).mkdir(exist_ok=True)
            if not (folder / name / STATUS).exists():
                write_status(folder / name, "pending")
        print(f"sweep of {len(jobs)} jobs in {folder}: {progress(folder)}", flush=True)

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if (folder / SWEEP).is_file() and Path(config.hydra.runtime.output_dir).parent == folder.resolve():
            print(f"sweep: {progress(folder)}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table; exit status 1 where a job did not finish."""
        folder = Path(config.hydra.sweep.dir)
        jobs = states(folder)
        print_table(folder, jobs)
        unfinished = [name for name, values in jobs.items() if values["state"] != "done"]
        if unfinished:
            count = f"{len(unfinished)} of {len(jobs)} jobs did not finish"
            print(f"error: {count}; the reasons are above", file=sys.stderr)
            sys.exit(1)


def keep_to_one_device(config: DictConfig) -> None:
    """Refuse a sweep whose jobs would train on several devices: each process of one would run the whole sweep again.

    Raises:
        UserError: the config asks for more than one.
    """
    trainer = config.trainer
    devices = list(trainer.devices) if OmegaConf.is_list(trainer.devices) else trainer.devices
    one = devices in (1, "1", "auto") or (isinstance(devices, list) and len(devices) == 1)
    if not one or trainer.num_nodes != 1:
        raise UserError(
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}: a job of a sweep trains on one "
            f"device; run several jobs at once instead (hydra/launcher=joblib or slurm), or one training without -m"
        )


def combinations(config: DictConfig) -> list[list[str]]:
    """The overrides of every job, as Hydra's own sweeper will combine them."""
    parameters = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*parameters, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return jobs


def name_of(config: DictConfig, overrides: Sequence[str]) -> str:
    """The folder of the job that has these overrides."""
    loader = GlobalHydra.instance().config_loader()
    return loader.load_sweep_config(config, list(overrides)).hydra.sweep.subdir


def command_of(config: DictConfig) -> str:
    """The command that began this sweep."""
    return shlex.join(["python", "train.py", "-m", *config.hydra.overrides.task])


def states(folder: Path) -> dict[str, dict[str, Any]]:
    """Status and metrics of every job of a sweep, by the name of its folder."""
    names = read_json(folder / SWEEP)["jobs"]
    return {name: read_json(folder / name / STATUS) | read_json(folder / name / METRICS) for name in names}


def progress(folder: Path) -> str:
    """``3 done, 1 failed, 8 to go, about 12:40 left``, from what the jobs' folders say."""
    jobs = states(folder)
    counts = Counter(values["state"] for values in jobs.values())
    shown = [f"{counts[state]} {state}" for state in ("done", "running", "failed", "interrupted") if counts[state]]
    waiting = len(jobs) - counts["done"] - counts["failed"] - counts["running"]
    spent = [values["time/train_seconds"] for values in jobs.values() if values["state"] == "done"]
    left = f", about {minutes(fmean(spent) * waiting)} left" if spent and waiting else ""
    return ", ".join([*shown, f"{waiting} to go"]) + left


def print_table(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    """Jobs by objective, best first; unfinished ones last, with their reason."""
    table = Table(title=str(folder), title_justify="left")
    table.add_column("job", overflow="fold")  # a name is shown whole
    for column in ("state", "mIoU", "split", "parameters", "GFLOP", "seconds"):
        table.add_column(column, no_wrap=True)
    for name, values in sorted(jobs.items(), key=lambda job: -(objective(job[1]) if job[1]["state"] == "done" else -1)):
        if values["state"] != "done":
            table.add_row(name, values["state"])
            continue
        table.add_row(
            name,
            "done",
            f"{objective(values):.4f}",
            "test" if f"test/{OBJECTIVE}" in values else "val",
            f"{values['model/parameters']:,}",
            f"{values['model/flops'] / 1e9:.2f}",
            f"{values['time/train_seconds']:.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for name, values in jobs.items():
        if values["state"] != "done":
            print(f"{values['state']}: {name}: {values['reason']}")
    print(f"tensorboard --logdir {folder}")
