"""The jobs of a sweep: which there are, how far each is, and one table at the end."""

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from unet.errors import UserError
from unet.io.atomic import read_json, write_json
from unet.io.run_folder import METRICS, STATUS, SWEEP, format_duration, write_status
from unet.runs.cli import exit_with_error, explain
from unet.runs.run import exit_on_signal, lock_folder, objective
from unet.runs.run_names import parse


class Sweep(Callback):
    """Hydra callback around a sweep: its jobs are written down before the first starts, and shown after the last.

    Attributes:
        names: the folders of this command's jobs; the sweep's folder may hold those of earlier commands too.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, exit_on_signal)  # a job in this process puts its own in its place for a while
        try:
            self.begin(config)
        except Exception as error:  # Hydra would only warn, and go on
            exit_with_error(error)

    def begin(self, config: DictConfig) -> None:
        sweeper = config.hydra.sweeper._target_.rpartition(".")[2]
        if sweeper != BasicSweeper.__name__:
            raise UserError(
                f"hydra/sweeper: {sweeper} chooses jobs as it goes, and this sweep's jobs are written down before the "
                f"first one; leave hydra/sweeper out and list the values (optim.lr=0.001,0.01)"
            )
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.select(config, "hydra.sweep.subdir")  # notes which keys are swept; a job's own config cannot tell
        jobs = {}
        for overrides in combinations(config):
            job = config_of(config, overrides)
            keep_to_one_device(job)
            jobs[job.hydra.sweep.subdir] = overrides
        self.names = list(jobs)
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, wait=True):  # another command may be adding its jobs
            known = read_json(folder / SWEEP)
            commands = dict.fromkeys([*known.get("commands", []), command_of(config)])
            write_json(folder / SWEEP, {"commands": list(commands), "jobs": known.get("jobs", {}) | jobs})
            for name in jobs:
                (folder / name).mkdir(exist_ok=True)
                if not (folder / name / STATUS).exists():
                    write_status(folder / name, "pending")
        print(f"sweep of {len(jobs)} jobs in {folder}: {progress(states(folder, self.names))}", flush=True)

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self.names:  # else a single run, or a process that a launcher has started
            print(f"sweep: {progress(states(Path(config.hydra.sweep.dir), self.names))}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show every job there is; exit status 1 where one of this command did not finish."""
        folder = Path(config.hydra.sweep.dir)
        print_table(folder, states(folder, read_json(folder / SWEEP)["jobs"]))
        report(folder)
        unfinished = [name for name, values in states(folder, self.names).items() if values["state"] != "done"]
        if unfinished:
            count = f"{len(unfinished)} of {len(self.names)} jobs did not finish"
            print(f"error: {count}; the reasons are above", file=sys.stderr)
            sys.exit(1)


def report(folder: Path) -> None:
    """Write the sweep's report and say what it found; the runs are safe whatever becomes of it."""
    # These bring matplotlib, scipy and torch, which nothing before this needs.
    from unet.report import analyze, write_report
    from unet.report.conclusions import summary_lines
    from unet.report.hparams import write_hparams_summary

    try:
        found = analyze(folder)
        print(write_report(found), *summary_lines(found), sep="\n")
        write_hparams_summary(found)
    except Exception as error:  # Hydra would only warn, and the sweep's exit status would be lost
        print(f"the report is not complete: {explain(error)}", file=sys.stderr)


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
    parsed = parse(config.hydra.overrides.task, config.hydra.sweeper.get("params"))
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return jobs


def config_of(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config of the job that has these overrides."""
    return GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))


def command_of(config: DictConfig) -> str:
    """The command that began this sweep."""
    return shlex.join(["python", "train.py", "-m", *config.hydra.overrides.task])


def states(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Status and metrics of jobs, by the name of their folder; one that left nothing is pending."""
    untouched = {"state": "pending", "reason": ""}
    return {name: untouched | read_json(folder / name / STATUS) | read_json(folder / name / METRICS) for name in names}


def progress(jobs: Mapping[str, Mapping[str, Any]]) -> str:
    """``3 done, 1 failed, 8 to go, about 12:40 left``; as many at once as now, when one of them has just ended."""
    counts = Counter(values["state"] for values in jobs.values())
    shown = [f"{counts[state]} {state}" for state in ("done", "running", "failed") if counts[state]]
    waiting = counts["pending"] + counts["interrupted"]
    spent = [
        values["time/train_seconds"] + values.get("time/diagnostics_seconds", 0)
        for values in jobs.values()
        if values["state"] == "done"
    ]
    left = (
        f", about {format_duration(fmean(spent) * waiting / (counts['running'] + 1))} left" if spent and waiting else ""
    )
    return ", ".join([*shown, f"{waiting} to go"]) + left


def print_table(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the jobs by validation mIoU, best first; unfinished ones last, with their reason."""
    table = Table(title=str(folder), title_justify="left")
    table.add_column("job", overflow="fold")  # a name is shown whole
    for column in ("state", "val mIoU", "test mIoU", "parameters", "GFLOP", "seconds"):
        table.add_column(column, no_wrap=True)
    for name, values in sorted(jobs.items(), key=lambda job: -(objective(job[1]) if job[1]["state"] == "done" else -1)):
        if values["state"] != "done":
            table.add_row(name, values["state"])
            continue
        table.add_row(
            name,
            "done",
            f"{objective(values):.4f}",
            f"{values['test/miou']:.4f}" if "test/miou" in values else "no test split",
            f"{values['model/parameters']:,}",
            f"{values['model/flops'] / 1e9:.2f}",
            f"{values['time/train_seconds']:.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for name, values in jobs.items():
        if values["state"] != "done":
            print(f"{values['state']}: {name}: {values['reason']}")
    print(shlex.join(["tensorboard", "--logdir", str(folder)]))
