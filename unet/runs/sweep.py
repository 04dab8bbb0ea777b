"""The jobs of a sweep: list them, report their progress, print a table at the end."""

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
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
from unet.runs.cli import program_name
from unet.runs.error_messages import exit_with_error
from unet.runs.folder_lock import lock_folder
from unet.runs.job_process import objective, start_job_server
from unet.runs.questions import keep_questions, read_questions
from unet.runs.run_names import parse
from unet.runs.signals import exit_on_signal
from unet.runs.sweep_report import report_sweep


class Sweep(Callback):
    """A Hydra callback that writes the list of jobs before a sweep and prints their results after it.

    Another sweeper than Hydra's own searches: it chooses each job by the results of those before, so there is no list.
    """

    def __init__(self) -> None:
        self.names: list[str] = []  # of this command's jobs; the sweep's folder may hold jobs of earlier commands too

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, exit_on_signal)  # replaced during a job in this process
        try:
            self.write_jobs(config)
        except Exception as error:  # Hydra would only warn
            exit_with_error(error)

    def write_jobs(self, config: DictConfig) -> None:
        """Write the list of jobs. Raises UserError where a job cannot be part of a sweep."""
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.select(config, "hydra.sweep.subdir")  # caches the swept keys, which a job's own config lacks
        if config.hydra.sweeper._target_.rpartition(".")[2] != BasicSweeper.__name__:
            require_maximum(config.hydra.sweeper)
            require_one_device(config)
            if config.get("questions") is not None:
                raise UserError("questions: a search compares nothing; leave them out, or hydra/sweeper")
            write_plan(folder, config, {}, {}, is_search=True)
            return
        jobs, configs = {}, []
        task: Any = OmegaConf.to_container(config.hydra.overrides.task)  # not resolved: ${seed} differs between jobs
        parsed = parse(task, config.hydra.sweeper.get("params"))
        for overrides in BasicSweeper.split_arguments(parsed, None)[0]:  # as Hydra's sweeper combines them
            job = GlobalHydra.instance().config_loader().load_sweep_config(config, overrides)
            require_one_device(job)
            if not jobs:
                start_job_server(job)
            jobs[job.hydra.sweep.subdir] = overrides
            configs.append(job)
        self.names = list(jobs)
        write_plan(folder, config, jobs, read_questions(config, configs))
        print(f"sweep of {len(jobs)} jobs in {folder}: {progress_line(read_states(folder, self.names))}", flush=True)

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self.names:  # otherwise a single run, or a process that a launcher started
            print(f"sweep: {progress_line(read_states(Path(config.hydra.sweep.dir), self.names))}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print every job; exit with status 1 where one of this command did not finish."""
        folder = Path(config.hydra.sweep.dir)
        existing = [path.parent.name for path in sorted(folder.glob(f"*/{STATUS}"))]  # those of a search are not listed
        print_table(folder, read_states(folder, dict.fromkeys([*read_json(folder / SWEEP)["jobs"], *existing])))
        report_sweep(folder)
        names = self.names or existing
        unfinished = [name for name, values in read_states(folder, names).items() if values["state"] != "done"]
        if unfinished:
            count = f"{len(unfinished)} of {len(names)} jobs did not finish"
            print(f"error: {count}; see the reasons above", file=sys.stderr)
            sys.exit(1)


def write_plan(
    folder: Path,
    config: DictConfig,
    jobs: Mapping[str, Any],
    questions: dict[str, Any],
    is_search: bool = False,
) -> None:
    """Add a command and its jobs, by the name of their folder, to ``sweep.json``, and mark them as pending."""
    task: Any = OmegaConf.to_container(config.hydra.overrides.task)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, wait=True):  # another command may be adding its jobs
        saved = read_json(folder / SWEEP)
        command = f"{program_name('train')} -m {shlex.join(task)}"
        commands = dict.fromkeys([*saved.get("commands", []), command])
        earlier = saved.get("jobs", {})
        has_results = any(values["state"] == "done" for values in read_states(folder, earlier).values())
        questions = keep_questions(saved, questions, has_results, folder)
        plan = {"commands": list(commands), "questions": questions, "jobs": earlier | jobs}
        write_json(folder / SWEEP, plan | ({"search": True} if is_search or saved.get("search") else {}))
        for name in jobs:
            (folder / name).mkdir(exist_ok=True)
            if not (folder / name / STATUS).exists():
                write_status(folder / name, "pending")


def require_maximum(sweeper: DictConfig) -> None:
    """Raise UserError unless a search maximizes the objective, which Optuna's sweeper minimizes by default."""
    direction = sweeper.get("direction", "maximize")
    if direction != "maximize":
        raise UserError(
            f"hydra.sweeper.direction: expected maximize, since the objective is the best validation mIoU, found "
            f"{direction}; use hydra/sweeper=search"
        )


def require_one_device(config: DictConfig) -> None:
    """Raise UserError where a job would train on several devices: each of its processes would run the sweep again."""
    trainer = config.trainer
    devices = list(trainer.devices) if OmegaConf.is_list(trainer.devices) else trainer.devices
    if not (devices in (1, "1", "auto") or (isinstance(devices, list) and len(devices) == 1)) or trainer.num_nodes != 1:
        raise UserError(
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}: a job of a sweep trains on one "
            f"device; run several jobs at once instead (hydra/launcher=joblib or slurm), or one training without -m"
        )


def read_states(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return status and metrics of jobs by the name of their folder; without a file a job is pending."""
    pending = {"state": "pending", "reason": ""}
    return {name: pending | read_json(folder / name / STATUS) | read_json(folder / name / METRICS) for name in names}


def progress_line(jobs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return ``3 done, 1 failed, 8 to go, about 12:40 left``, for one job more in parallel than are running."""
    counts = Counter(values["state"] for values in jobs.values())
    parts = [f"{counts[state]} {state}" for state in ("done", "running", "failed") if counts[state]]
    waiting = counts["pending"] + counts["interrupted"]
    done = [values for values in jobs.values() if values["state"] == "done"]
    seconds = [values["time/train_seconds"] + values.get("time/diagnostics_seconds", 0) for values in done]
    estimate = ""
    if seconds and waiting:
        estimate = f", about {format_duration(fmean(seconds) * waiting / (counts['running'] + 1))} left"
    return ", ".join([*parts, f"{waiting} to go"]) + estimate


def print_table(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the jobs by validation mIoU, best first; unfinished ones last, with their reason."""
    table = Table(title=str(folder), title_justify="left")
    table.add_column("job", overflow="fold")
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
