"""The pages: the study in its templates, HTML and Markdown."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import unet.report.diagnostics as diagnostics
import unet.report.pictures as pictures
import unet.report.plots as plots
import unet.report.statistics as statistics
import unet.report.tables as tables
import unet.report.words as words
from unet.report.folklore import judge
from unet.report.study import Study

MOST_DIFFERENCES = 20
"""Drawn; more do not fit on a page, and stand in the table."""


@cache
def templates() -> Environment:
    """HTML is escaped whatever it holds; Markdown cells by their own filter."""
    found = Environment(
        loader=PackageLoader("unet.report"),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["cell"] = cell
    return found


def cell(text: str) -> str:
    """A text for a Markdown table: one line, no bars, no markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(str(text).split()))
    return escaped or " "


def contents(study: Study) -> dict[str, Any]:
    """What both pages say."""
    two = study.effects
    further, unmeasured = tables.further(study)
    return {
        "name": study.sweep.folder.resolve().name,
        "sweep_commands": study.sweep.commands,
        "answer": words.answer(study),
        "warnings": study.warnings,
        "choices": study.choices,
        "split": study.split,
        "images": study.images,
        "arms": tables.arms(study),
        "comparisons": tables.comparisons(study.contrasts),
        "repeats": tables.comparisons([found for *_, found in study.repeats]),
        "two": two,
        "grid": tables.grid(study, two) if two else None,
        "main": tables.comparisons([*two.main[0], *two.main[1]]) if two else None,
        "interactions": tables.interactions(two) if two else None,
        "costs": tables.costs(study),
        "classes": tables.classes(study),
        "further": further,
        "unmeasured": unmeasured,
        "folklore": tables.folklore(judge(study)),
        "gaps": tables.gaps(study),
        "provenance": tables.provenance(study),
        "commands": tables.commands(study),
        "replicates": statistics.REPLICATES,
    }


def figures(study: Study) -> dict[str, Any]:
    """What the HTML page shows besides."""
    shown = any(study.runs)
    surest = sorted(study.compared, key=lambda c: (c.p_adjusted, -abs(c.difference)))[:MOST_DIFFERENCES]
    contrasts = sorted(surest, key=lambda c: -abs(c.difference))
    which = "" if len(contrasts) == len(study.compared) else f", {len(contrasts)} of {len(study.compared)}"
    curves = [*diagnostics.object_curves(study), *diagnostics.trimap_curve(study), *diagnostics.level_curves(study)]
    crops, without_crops = pictures.crop_pictures(study)
    return {
        "overview": [plots.seeds_panel(study)] * shown
        + ([plots.differences_panel(study, contrasts, f"Differences between arms{which}")] if contrasts else []),
        "cost_figures": plots.cost_panels(study),
        "curves": [plots.curve_panel(study, curve) for curve in curves],
        "crops": crops,
        "without_crops": without_crops,
        "shades": plots.shades(tables.grid(study, study.effects)[1]) if study.effects else None,
    }


def html(study: Study) -> str:
    """One self-contained page: style and figures are in it, nothing is loaded."""
    return templates().get_template("page.html.jinja").render(contents(study) | figures(study))


def markdown(study: Study) -> str:
    return templates().get_template("page.md.jinja").render(contents(study))
