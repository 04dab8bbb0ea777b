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
from unet.report.comparison import Contrast, TwoFactors
from unet.report.diagnostic_curves import mean_lines
from unet.report.metrics import mean_and_sd, metric_title
from unet.report.read_sweep import to_json
from unet.report.summary_text import NONE, format_number, question_name


@dataclass(frozen=True)
class Table:
    """A table of texts with column headings and a note (may be empty)."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def format_mean_and_sd(mean: float, deviation: float) -> str:
    text = format_number(mean)
    if math.isnan(deviation):
        return text
    decimals = len(text.partition(".")[2])  # the deviation has as many, unless that leaves nothing of it
    is_scientific = "e" in text or (deviation > 1e-12 and round(deviation, decimals) == 0)
    return f"{text} ± {format_number(deviation) if is_scientific else f'{deviation:.{decimals}f}'}"


def format_range(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{format_number(low)} … {format_number(high)}"


def with_unit(table: Table, analysis: SweepAnalysis) -> Table:
    """Return a table in which headings, cells and note name what was replicated: seeds or folds."""
    columns, *rows = ([name_replicates(text, analysis.unit) for text in row] for row in (table.columns, *table.rows))
    return replace(table, columns=columns, rows=rows, note=name_replicates(table.note, analysis.unit))


def arm_table(analysis: SweepAnalysis) -> Table:
    """Return score and costs of every arm."""
    units = {"model/parameters": 1, "model/flops": 1e6, "memory/peak_bytes": 2**20}
    costs = mean_lines(analysis, list(units)) / list(units.values())
    rows = []
    for index, arm in enumerate(analysis.arms):
        mean, deviation = mean_and_sd(analysis.scores.values[index])
        numbers = [NONE if math.isnan(value) else f"{value:,.0f}" for value in costs[index]]
        fields = [run.metrics.get("model/receptive_field") for run in analysis.runs[index].values()]
        texts = {" x ".join(map(str, size)) if isinstance(size, list) else str(size or NONE) for size in fields}
        trained = f"{len(analysis.runs[index])} of {len(analysis.finished[index])}"
        cells = [str(index + 1), arm.label, format_number(mean), format_number(deviation), trained]
        rows.append([*cells, *numbers, " / ".join(sorted(texts)) or NONE])
    notes = ["Means over seeds of the runs that trained. MFLOP: forward pass of one image."]
    if math.isfinite(ratio := spread_ratio(analysis)):
        notes.append(
            f"The standard deviation of the arms' means is {ratio:.1f} times that of runs within an arm"
            f"{'' if ratio >= 1 else ': single runs do not rank the arms'}."
        )
    if math.isfinite(saved := variance_saved(analysis)):
        notes.append(f"Pairing runs by seed {'saves' if saved >= 0 else 'adds'} {abs(saved):.0%} of the variance.")
    if analysis.dependent_keys:
        pairs = "; ".join(f"{key} with {leader}" for key, leader in analysis.dependent_keys.items())
        notes.append(f"Keys that change together: {pairs}.")
    columns = ["", "arm", analysis.metric_name, "sd over seeds", "trained", "parameters", "MFLOP", "peak MiB",
               "receptive field"]  # fmt: skip
    return Table(columns, rows, " ".join(notes))


def spread_ratio(analysis: SweepAnalysis) -> float:
    """Return the standard deviation of the arms' means divided by that of runs within an arm; nan if unknown."""
    values = analysis.scores.values[analysis.main]
    variances = np.array([mean_and_sd(row)[1] ** 2 for row in values])
    variances, means = variances[np.isfinite(variances)], analysis.scores.means()[analysis.main]
    within = math.sqrt(variances.mean()) if len(variances) else 0.0
    return mean_and_sd(means)[1] / within if within else math.nan


def variance_saved(analysis: SweepAnalysis) -> float:
    """Return the part of the variance of a difference that pairing by seed saves, over all pairs of arms.

    It is the correlation of two arms over seeds: 1 if a seed does the same to both, 0 if pairing is useless.
    """
    paired = unpaired = 0.0
    for first, second, contrast in analysis.pairs:
        known = np.isfinite(contrast.by_seed)
        if known.sum() > 2:
            a, b = (analysis.scores.values[arm][known] for arm in (first, second))
            paired += float(np.var(a - b))
            unpaired += float(np.var(a) + np.var(b))
    return 1 - paired / unpaired if unpaired else math.nan


def question_table(analysis: SweepAnalysis) -> Table:
    """Return difference, intervals and verdict of every question."""
    rows = []
    for question in analysis.questions:
        contrast = question.contrast
        cells = [question_name(analysis, question), analysis.verdict(question), format_number(contrast.difference)]
        wide = format_range(contrast.wide_low, contrast.wide_high)
        rows.append([*cells, format_range(contrast.low, contrast.high), wide, str(contrast.seeds)])
    columns = ["first vs second", "first is", "difference", f"{100 * (1 - analysis.look.alpha):.3g} % interval",
               "for other images", "seeds"]  # fmt: skip
    return Table(columns, rows)


def comparison_table(contrasts: Sequence[Contrast]) -> Table:
    """Return difference and interval of pairs of arms."""
    rows = []
    for contrast in contrasts:
        seeds = str(contrast.seeds) if contrast.is_paired else "other seeds"
        interval = format_range(contrast.low, contrast.high)
        rows.append([contrast.name, format_number(contrast.difference), interval, seeds])
    return Table(["first vs second", "difference", "95 % interval", "seeds"], rows)


def two_way_table(analysis: SweepAnalysis, table: TwoFactors) -> tuple[list[list[str]], np.ndarray]:
    """Return texts and means (I, J) of the two-way table."""
    means = np.where(table.cells >= 0, analysis.scores.means()[table.cells], math.nan)

    def cell(arm: int) -> str:
        values = analysis.scores.values[arm] if arm >= 0 else np.array([])
        seeds = int(np.isfinite(values).sum())
        return f"{format_mean_and_sd(*mean_and_sd(values))} (n={seeds})" if seeds else "no run"

    return [[cell(arm) for arm in row] for row in table.cells], means


def interaction_table(table: TwoFactors) -> Table | None:
    """Return the deviation of every combination from the sum of its two effects."""
    if table.deviations is None:
        return None
    rows = [[name, *(f"{value:+.4f}" for value in row)]
            for name, row in zip(table.levels[0], table.deviations, strict=True)]  # fmt: skip
    note = f"Test of no interaction (sign flips of {table.seeds} whole tables): p = {table.p:.3g}."
    return Table([f"{table.factors[0]} \\ {table.factors[1]}", *table.levels[1]], rows, note)


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
        cells = [NONE] * 3
        if contrast.seeds:
            interval = "exact count" if is_exact(claim) else format_range(contrast.low, contrast.high)
            cells = [format_number(contrast.difference), interval, str(contrast.seeds)]
        about = [f"{claim.number}. {claim.sentence}", claim.comparison, metric_title(claim.metric)]
        rows.append([*about, *cells, entry.verdict])
    return Table(["claim", "comparison", "metric", "difference", "95 % interval", "seeds", "verdict"], rows)


def missing_run_table(analysis: SweepAnalysis) -> Table:
    """Return the runs that are in no statistics, with the reason: missing, failed, or not trained."""
    rows = [
        [run.name or NONE, run.arm or NONE, format_replicate(run.replicate), run.state, run.reason, run.command]
        for run in analysis.missing_runs
    ]
    for entry in (entry for entry in analysis.untrained if entry.is_excluded):
        run = analysis.finished[entry.arm][entry.replicate]
        label = analysis.arms[entry.arm].label
        rows.append([run.name, label, format_replicate(entry.replicate), "not trained", entry.reason, run.command])
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
