"""``results.csv``: one row a run, every raw value."""

import csv
import io

from unet.report.runs import jsonable
from unet.report.study import Study


def rows(study: Study) -> str:
    """The runs as CSV: which arm, how it ended, what varied, and every key of its metrics as it stands there."""
    arms = {run.folder: arm for arm in study.arms for run in arm.runs}
    compared = {run.folder for runs in study.runs for run in runs.values()}
    gaps = {gap.name: gap for gap in study.gaps if gap.name}
    metrics = list(dict.fromkeys(key for run in study.sweep.runs for key in run.metrics))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    about = ["run", "arm", "seed", "state", "reason", "in_statistics", "command"]
    settings = [f"config/{key}" for key in study.factors]
    writer.writerow(about + settings + metrics)
    for run in study.sweep.runs:
        arm, gap = arms.get(run.folder), gaps.get(run.name)
        writer.writerow(
            [
                run.name,
                arm.label if arm else "",
                "" if run.seed is None else run.seed,
                gap.state if gap else run.state,
                gap.reason if gap else run.reason,
                run.folder in compared,
                run.command,
                *(arm.values[key] if arm else "" for key in study.factors),
                *(jsonable(run.metrics[key]) if key in run.metrics else "" for key in metrics),
            ]
        )
    return buffer.getvalue()
