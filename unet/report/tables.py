"""Build the tables of a report as text cells, for HTML and Markdown."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import unet.report.diagnostic_curves as diagnostic_curves
from unet.report.analysis import SweepAnalysis
from unet.report.arms import format_replicate, name_replicates
from unet.report.common_claims import EvaluatedClaim, is_exact
from unet.report.comparison import Contrast, Effects
from unet.report.diagnostic_curves import mean_lines
from unet.report.metrics import mean_and_sd, metric_title
from unet.report.read_sweep import to_json
from unet.report.summary_text import NONE, format_number


@dataclass(frozen=True)
class Table:
    """A table of texts with column headings and a note (may be empty)."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def format_mean_and_sd(mean: float, deviation: float) -> str:
    return format_number(mean) if math.isnan(deviation) else f"{format_number(mean)} ± {format_number(deviation)}"


def format_range(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{format_number(low)} … {format_number(high)}"


def with_unit(table: Table, analysis: SweepAnalysis) -> Table:
    """Return a table in which headings, cells and note name what was replicated: seeds or folds."""
    columns, *rows = ([name_replicates(text, analysis.unit) for text in row] for row in (table.columns, *table.rows))
    return replace(table, columns=columns, rows=rows, note=name_replicates(table.note, analysis.unit))


def arm_table(analysis: SweepAnalysis) -> Table:
    """Return mean, standard deviation, interval and, with enough seeds, rank of every arm."""
    ranks = analysis.ranks()
    rows = []
    for index, arm in enumerate(analysis.arms):
        mean, deviation = mean_and_sd(analysis.scores.values[index])
        _, low, high = analysis.arm_interval(index)
        rank = "-".join(map(str, dict.fromkeys(ranks[index]))) if index in ranks else NONE
        cells = [str(index + 1), arm.label, format_number(mean), format_number(deviation), format_range(low, high)]
        rows.append([*cells, str(len(analysis.runs[index])), rank])
    notes = [] if ranks else ["Arms are not ranked: too few seeds that every arm has."]
    if analysis.dependent_keys:
        pairs = "; ".join(f"{key} with {leader}" for key, leader in analysis.dependent_keys.items())
        notes.append(f"Keys that change together: {pairs}.")
    metric = analysis.metric_name
    return Table(["", "arm", metric, "sd over seeds", "95 % interval", "seeds", "rank, 95 %"], rows, " ".join(notes))


def comparison_table(contrasts: Sequence[Contrast]) -> Table:
    columns = ["first vs second", "difference", "95 % interval", "p", "p, corrected", "P(first > second)", "seeds",
               "claimed"]  # fmt: skip
    return Table(columns, [comparison(contrast) for contrast in contrasts])


def comparison(contrast: Contrast) -> list[str]:
    if not contrast.seeds and math.isnan(contrast.difference):
        return [contrast.name, *[NONE] * 5, "0", "no seed in common"]
    cells = [contrast.name, format_number(contrast.difference), format_range(contrast.low, contrast.high),
             f"{contrast.p:.3g}"]  # fmt: skip
    if not contrast.is_paired:
        return [*cells, NONE, NONE, "other seeds", NONE]
    probability, low, high = contrast.superiority
    claimed = "yes" if contrast.is_claimed else "no" if contrast.is_resolvable else "too few seeds"
    return [
        *cells,
        f"{contrast.p_adjusted:.3g}",
        f"{probability:.2f} ({low:.2f} … {high:.2f})",
        str(contrast.seeds),
        claimed,
    ]


def two_way_table(analysis: SweepAnalysis, effects: Effects) -> tuple[list[list[str]], np.ndarray]:
    """Return texts and means (I, J) of the two-way table."""
    means = np.where(effects.cells >= 0, analysis.scores.means()[effects.cells], math.nan)

    def cell(arm: int) -> str:
        values = analysis.scores.values[arm] if arm >= 0 else np.array([])
        seeds = int(np.isfinite(values).sum())
        return f"{format_mean_and_sd(*mean_and_sd(values))} (n={seeds})" if seeds else "no run"

    return [[cell(arm) for arm in row] for row in effects.cells], means


def interaction_table(effects: Effects) -> Table | None:
    """Return the deviation of every combination from the sum of its two effects."""
    if effects.deviations is None:
        return None
    rows = [[name, *(f"{value:+.4f}" for value in row)]
            for name, row in zip(effects.levels[0], effects.deviations, strict=True)]  # fmt: skip
    note = f"Test of no interaction (sign flips of {effects.seeds} whole tables): p = {effects.p:.3g}."
    return Table([f"{effects.factors[0]} \\ {effects.factors[1]}", *effects.levels[1]], rows, note)


def cost_table(analysis: SweepAnalysis) -> Table:
    """Return the costs of every arm, which may explain a difference."""
    units = {"model/parameters": 1, "model/flops": 1e6, "time/train_seconds": 1, "time/samples_per_second": 1,
              "memory/peak_bytes": 2**20}  # fmt: skip
    means = mean_lines(analysis, list(units)) / list(units.values())
    rows = []
    for index, arm in enumerate(analysis.arms):
        numbers = [NONE if math.isnan(value) else f"{value:,.0f}" for value in means[index]]
        fields = [run.metrics.get("model/receptive_field") for run in analysis.runs[index].values()]
        texts = {" x ".join(map(str, size)) if isinstance(size, list) else str(size or NONE) for size in fields}
        score = format_number(analysis.scores.means()[index])
        rows.append([str(index + 1), arm.label, score, *numbers[:2], " / ".join(sorted(texts)) or NONE, *numbers[2:]])
    names = ["parameters", "MFLOP", "receptive field", "train s", "samples/s", "peak MiB"]
    columns = ["", "arm", metric_title(analysis.metric), *names]
    return Table(columns, rows, "Means over seeds. FLOPs: forward pass of one image. Times include the machine's load.")


def diagnostic_table(analysis: SweepAnalysis) -> tuple[Table | None, list[str]]:
    """Return the diagnostics of every arm, and the names of those that no run has."""
    present, rows, absent = diagnostic_curves.table(analysis)
    missing = [f"{diagnostic.heading} ({diagnostic.meaning.split(';')[0]})" for diagnostic in absent]
    if not present:
        return None, missing
    cells = [[str(i + 1), analysis.arms[i].label, *(format_mean_and_sd(*pair) for pair in row)]
             for i, row in enumerate(rows)]  # fmt: skip
    meanings = " ".join(f"{item.heading[0].upper()}{item.heading[1:]}: {item.meaning}." for item in present)
    columns = ["", "arm", *(diagnostic.heading for diagnostic in present)]
    return Table(columns, cells, f"Mean ± sd over seeds. {meanings}"), missing


def class_table(analysis: SweepAnalysis) -> Table | None:
    """Return the IoU of every class, means over seeds."""
    names = diagnostic_curves.suffixes(analysis, "iou")
    if not names:
        return None
    values = mean_lines(analysis, [f"iou/{name}" for name in names])
    rows = [[str(i + 1), analysis.arms[i].label, *(format_number(value, 3) for value in row)]
            for i, row in enumerate(values)]  # fmt: skip
    return Table(["", "arm", *names], rows, f"{analysis.split} IoU, means over seeds.")


def claim_table(evaluated: Sequence[EvaluatedClaim]) -> Table:
    rows = []
    for entry in evaluated:
        claim, contrast = entry.claim, entry.contrast
        cells = [NONE] * 4
        if contrast.seeds:
            tested = [format_range(contrast.low, contrast.high), f"{contrast.p_adjusted:.3g}"]
            uncertainty = ["exact count", NONE] if is_exact(claim) else tested
            cells = [format_number(contrast.difference), *uncertainty, str(contrast.seeds)]
        about = [f"{claim.number}. {claim.sentence}", claim.comparison, metric_title(claim.metric)]
        rows.append([*about, *cells, entry.verdict])
    columns = ["claim", "comparison", "metric", "difference", "95 % interval", "p, corrected", "seeds", "verdict"]
    return Table(columns, rows)


def missing_run_table(analysis: SweepAnalysis) -> Table:
    rows = [
        [run.name or NONE, run.arm or NONE, format_replicate(run.replicate), run.state, run.reason, run.command]
        for run in analysis.missing_runs
    ]
    return Table(["run", "arm", "seed", "state", "reason", "command"], rows)


def provenance_table(analysis: SweepAnalysis) -> Table:
    """Return every text in the runs' metrics (commit, versions, machine, data) with the number of runs."""
    runs = [run for run in analysis.sweep.runs if run.metrics]
    keys = sorted({key for run in runs for key, value in run.metrics.items() if isinstance(value, str)})
    rows = []
    for key in keys:
        counts = Counter(to_json(run.metrics[key]) for run in runs if key in run.metrics)
        values = [value if len(counts) == 1 else f"{value} ({n} runs)" for value, n in counts.items()]
        rows.append([key, "; ".join(values)])
    return Table(["key", "value"], rows)


def command_table(analysis: SweepAnalysis) -> Table:
    """Return the exact command of every run."""
    arm_of = {run.folder: arm.label for arm in analysis.arms for run in arm.runs}
    rows = [
        [run.name, arm_of.get(run.folder, NONE), format_replicate(run.replicate), run.command]
        for run in analysis.sweep.runs
    ]
    return Table(["run", "arm", "seed", "command"], rows)
