"""Write ``results.csv``: one row per run with every raw value."""

import csv
import io

from unet.report.analysis import SweepAnalysis
from unet.report.read_sweep import to_json


def to_csv(analysis: SweepAnalysis) -> str:
    """Return the runs as CSV: arm, state, factors, and every metric unrounded."""
    arms = {run.folder: arm for arm in analysis.arms for run in arm.runs}
    compared = {run.folder for runs in analysis.runs for run in runs.values()}
    missing_runs = {missing.name: missing for missing in analysis.missing_runs if missing.name}
    untrained = {analysis.finished[run.arm][run.replicate].folder: run.reason for run in analysis.untrained}
    metrics = list(dict.fromkeys(key for run in analysis.sweep.runs for key in run.metrics))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    has_folds = any(run.fold is not None for run in analysis.sweep.runs)
    about = ["run", "arm", "seed", *["fold"] * has_folds, "state", "reason", "in_statistics", "command"]
    settings = [f"config/{key}" for key in analysis.factors]
    writer.writerow(about + settings + metrics)
    for run in analysis.sweep.runs:
        arm, missing = arms.get(run.folder), missing_runs.get(run.name)
        writer.writerow(
            [
                run.name,
                arm.label if arm else "",
                "" if run.seed is None else run.seed,
                *([run.fold] if has_folds else []),
                missing.state if missing else run.state,
                missing.reason if missing else untrained.get(run.folder, run.reason),
                run.folder in compared,
                run.command,
                *(arm.values[key] if arm else "" for key in analysis.factors),
                *(to_json(run.metrics[key]) if key in run.metrics else "" for key in metrics),
            ]
        )
    return buffer.getvalue()
