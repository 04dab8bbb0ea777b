"""The tables of a report as text cells, for the page and for Markdown alike."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import unet.report.diagnostics as diagnostics
from unet.report.comparison import Contrast, Effects
from unet.report.folklore import Judged, is_exact
from unet.report.measures import title
from unet.report.plots import arm_interval
from unet.report.runs import jsonable
from unet.report.study import Study
from unet.report.words import NONE, short


@dataclass(frozen=True)
class Table:
    """Attributes: column headings, rows of texts, and a sentence below (may be empty)."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row does not have the {len(self.columns)} cells of {self.columns}")


def spread_text(mean: float, deviation: float) -> str:
    return short(mean) if math.isnan(deviation) else f"{short(mean)} ± {short(deviation)}"


def range_text(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{short(low)} … {short(high)}"


def arms(study: Study) -> Table:
    """Mean, spread, interval and, where the seeds allow it, rank of every arm."""
    ranks = study.ranks()
    rows = []
    for index, arm in enumerate(study.arms):
        mean, deviation = diagnostics.mean_and_spread(study.scores.values[index])
        _, low, high = arm_interval(study, index)
        rank = "-".join(map(str, dict.fromkeys(ranks[index]))) if index in ranks else NONE
        cells = [str(index + 1), arm.label, short(mean), short(deviation), range_text(low, high)]
        rows.append([*cells, str(len(study.runs[index])), rank])
    note = "" if ranks else "Nothing is ranked: too few seeds that every arm has."
    if study.followers:
        moved = "; ".join(f"{key} moves with {teller}" for key, teller in study.followers.items())
        note = f"{note} What else differed between arms: {moved}.".strip()
    metric = f"{study.split} {title(study.metric)}"
    return Table(["", "arm", metric, "sd over seeds", "95 % interval", "seeds", "rank, 95 %"], rows, note)


def comparisons(contrasts: Sequence[Contrast]) -> Table:
    columns = [
        "first vs second",
        "difference",
        "95 % interval",
        "p",
        "p, corrected",
        "P(first > second)",
        "seeds",
        "claimed",
    ]
    return Table(columns, [comparison(found) for found in contrasts])


def comparison(found: Contrast) -> list[str]:
    if not found.seeds and math.isnan(found.difference):
        return [found.name, NONE, NONE, NONE, NONE, NONE, "0", "no seed in common"]
    share, low, high = found.ahead
    return [
        found.name,
        short(found.difference),
        range_text(found.low, found.high),
        f"{found.p:.3g}",
        f"{found.p_adjusted:.3g}" if found.paired else NONE,
        f"{share:.2f} ({low:.2f} … {high:.2f})" if found.paired else NONE,
        str(found.seeds) if found.paired else "other seeds",
        ("yes" if found.claimed else "no" if found.resolvable else "too few seeds") if found.paired else NONE,
    ]


def grid(study: Study, two: Effects) -> tuple[list[list[str]], np.ndarray]:
    """Texts and means (I, J) of the two-way table."""
    means = np.where(two.cells >= 0, study.scores.means()[two.cells], math.nan)
    texts = []
    for row in two.cells:
        cells = []
        for arm in row:
            values = study.scores.values[arm] if arm >= 0 else np.array([])
            known = int(np.isfinite(values).sum())
            cells.append(f"{spread_text(*diagnostics.mean_and_spread(values))} (n={known})" if known else "no run")
        texts.append(cells)
    return texts, means


def interactions(two: Effects) -> Table | None:
    """What each combination has beyond the sum of its two effects."""
    if two.deviations is None:
        return None
    rows = [
        [name, *(f"{value:+.4f}" for value in row)] for name, row in zip(two.levels[0], two.deviations, strict=True)
    ]
    note = f"Test of no interaction, sign flips of {two.seeds} whole tables: p = {two.p:.3g}."
    return Table([f"{two.factors[0]} \\ {two.factors[1]}", *two.levels[1]], rows, note)


def costs(study: Study) -> Table:
    """What may explain a difference besides the choice itself."""
    columns = [
        "",
        "arm",
        title(study.metric),
        "parameters",
        "MFLOP",
        "receptive field",
        "train s",
        "samples/s",
        "peak MiB",
    ]
    scales = {"model/parameters": 1, "model/flops": 1e6, "time/train_seconds": 1, "time/samples_per_second": 1,
              "memory/peak_bytes": 2**20}  # fmt: skip
    means = {
        key: [diagnostics.mean_and_spread(row)[0] / by for row in study.of(key).values] for key, by in scales.items()
    }
    rows = []
    for arm in range(len(study.arms)):
        number = {key: NONE if math.isnan(values[arm]) else f"{values[arm]:,.0f}" for key, values in means.items()}
        fields = {field_text(run.metrics.get("model/receptive_field")) for run in study.runs[arm].values()}
        rows.append([
            str(arm + 1), study.arms[arm].label, short(study.scores.means()[arm]), number["model/parameters"],
            number["model/flops"], " / ".join(sorted(fields)) or NONE, number["time/train_seconds"],
            number["time/samples_per_second"], number["memory/peak_bytes"],
        ])  # fmt: skip
    return Table(columns, rows, "Means over seeds. FLOPs are of one image's forward pass; times are as measured, with "
                                "whatever else the machine did.")  # fmt: skip


def field_text(field: Any) -> str:
    if not field:
        return NONE
    return " x ".join(map(str, field)) if isinstance(field, list) else str(field)


def further(study: Study) -> tuple[Table | None, list[str]]:
    """Diagnostics by arm, and a sentence for each that no run has."""
    present, rows, absent = diagnostics.table(study)
    missing = [f"{diagnostic.heading} ({diagnostic.meaning.split(';')[0]})" for diagnostic in absent]
    if not present:
        return None, missing
    cells = [[str(i + 1), study.arms[i].label, *(spread_text(*pair) for pair in row)] for i, row in enumerate(rows)]
    note = " ".join(
        f"{diagnostic.heading[0].upper()}{diagnostic.heading[1:]}: {diagnostic.meaning}." for diagnostic in present
    )
    return Table(
        ["", "arm", *(diagnostic.heading for diagnostic in present)], cells, f"Mean ± sd over seeds. {note}"
    ), missing


def classes(study: Study) -> Table | None:
    """IoU of every class, means over seeds."""
    names, values = diagnostics.class_scores(study)
    if not names:
        return None
    rows = [[str(i + 1), study.arms[i].label, *(short(value, 3) for value in row)] for i, row in enumerate(values)]
    return Table(["", "arm", *names], rows, f"{study.split} IoU, means over seeds.")


def folklore(judged: Sequence[Judged]) -> Table:
    columns = [
        "sentence",
        "held against",
        "measured",
        "difference",
        "95 % interval",
        "p, corrected",
        "seeds",
        "verdict",
    ]
    rows = []
    for entry in judged:
        found, exact = entry.found, is_exact(entry.saying)
        uncertain = (
            ["counted, not estimated", NONE]
            if exact
            else [range_text(found.low, found.high), f"{found.p_adjusted:.3g}"]
        )
        cells = [short(found.difference), *uncertain, str(found.seeds)] if found.seeds else [NONE] * 4
        said = [f"{entry.saying.number}. {entry.saying.sentence}", entry.saying.contrast, title(entry.saying.metric)]
        rows.append([*said, *cells, entry.verdict])
    return Table(columns, rows)


def gaps(study: Study) -> Table:
    rows = [
        [
            gap.name or NONE,
            gap.arm or NONE,
            NONE if gap.seed is None else str(gap.seed),
            gap.state,
            gap.reason,
            gap.command,
        ]
        for gap in study.gaps
    ]
    return Table(["run", "arm", "seed", "state", "reason", "command"], rows)


def provenance(study: Study) -> Table:
    """Every fact of the runs that is a text: commits, versions, machine, data; how many runs say so."""
    runs = [run for run in study.sweep.runs if run.metrics]
    keys = sorted({key for run in runs for key, value in run.metrics.items() if isinstance(value, str)})
    rows = []
    for key in keys:
        counted = Counter(jsonable(run.metrics[key]) for run in runs if key in run.metrics)
        alone = len(counted) == 1
        rows.append([key, "; ".join(value if alone else f"{value} ({n} runs)" for value, n in counted.items())])
    return Table(["fact", "value"], rows)


def commands(study: Study) -> Table:
    """The exact command of every run."""
    arm_of = {run.folder: arm.label for arm in study.arms for run in arm.runs}
    rows = [
        [run.name, arm_of.get(run.folder, NONE), NONE if run.seed is None else str(run.seed), run.command]
        for run in study.sweep.runs
    ]
    return Table(["run", "arm", "seed", "command"], rows)
