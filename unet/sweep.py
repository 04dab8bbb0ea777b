"""One job of a command, and the table of a sweep's jobs. A failing job is recorded and does not stop the others."""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table as RichTable

from unet.command import FULL_ERROR, explain, say, signal_status
from unet.errors import Interrupted, UserError
from unet.record import METRICS, STATUS, claim, read_json, write_status, write_text

OBJECTIVE = "miou"


def run_job(job: Callable[[DictConfig, Path], Mapping[str, Any]], config: DictConfig) -> float:
    """Run ``job(config, folder)`` in this job's own folder and return its objective, the mIoU of the final evaluation.

    The folder gets ``config.yaml`` and ``status.json``. In a sweep an error is written there, with its traceback in
    ``error.txt``, and NaN returned; a single run ends with it, as one sentence. A signal ends both, saved.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            claim(folder, config.ckpt_path)
    except UserError as error:  # the folder is another run's: nothing is written there
        return failed(error, hydra.mode)
    try:
        write_status(folder, "running")
        command = shlex.join(["python", "train.py", *hydra.overrides.task])
        write_text(folder / "config.yaml", f"# {command}\n{OmegaConf.to_yaml(config, resolve=True)}")
        metrics = job(config, folder)
    except Interrupted as error:
        write_status(folder, "interrupted", str(error))
        print(f"{error}; to go on, repeat the command with ckpt_path={error.checkpoint}", file=sys.stderr)
        sys.exit(signal_status(error.signum))
    except (KeyboardInterrupt, SystemExit):  # a second signal: Lightning turns it into an exit
        write_status(folder, "interrupted", "stopped at once")
        sys.exit(signal_status(signal.SIGINT))
    except Exception as error:
        write_status(folder, "failed", explain(error))
        (folder / "error.txt").write_text(traceback.format_exc())
        return failed(error, hydra.mode)
    write_status(folder, "done")
    return objective(metrics)


def failed(error: Exception, mode: RunMode | None) -> float:
    """In a sweep say what went wrong and go on, with NaN for a score; in a single run end with the error."""
    if mode != RunMode.MULTIRUN:
        if FULL_ERROR:
            raise error
        say(error)
    print(f"failed: {explain(error)}", file=sys.stderr)
    return float("nan")


def objective(metrics: Mapping[str, Any]) -> float:
    """The test split's mIoU, or the validation split's where there is no test split."""
    return next(
        (float(metrics[key]) for key in (f"test/{OBJECTIVE}", f"val/{OBJECTIVE}") if key in metrics), float("nan")
    )


class Table(Callback):
    """Hydra callback: after a sweep, one table of its jobs, failed ones with their reason; status 1 if any failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        jobs = sorted(path.parent for path in folder.glob(f"*/{STATUS}"))
        states = {job.name: read_json(job / STATUS) | read_json(job / METRICS) for job in jobs}
        print_table(folder, states)
        unfinished = [name for name, values in states.items() if values["state"] != "done"]
        if unfinished:
            print(
                f"error: {len(unfinished)} of {len(jobs)} jobs did not finish; the reasons are above", file=sys.stderr
            )
            sys.exit(1)


def print_table(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    """Jobs by objective, best first; unfinished ones last, with their reason."""
    table = RichTable(title=str(folder), title_justify="left")
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
