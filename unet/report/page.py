"""Render an analysis as HTML and as Markdown."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import unet.report.conclusions as words
import unet.report.diagnostic_curves as diagnostics
import unet.report.embedded_images as pictures
import unet.report.plots as plots
import unet.report.statistics as statistics
import unet.report.tables as tables
from unet.report.analysis import SweepAnalysis
from unet.report.claims import evaluate_claims

MAX_DRAWN = 20
"""Differences in the figure; the table has all."""


@cache
def templates() -> Environment:
    """Return the environment of the templates; HTML is escaped, Markdown cells have their own filter."""
    environment = Environment(
        loader=PackageLoader("unet.report"),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    return environment


def cell(text: str) -> str:
    """Return a text for a Markdown table: one line, no bars, no markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(str(text).split()))
    return escaped or " "


def contents(analysis: SweepAnalysis) -> dict[str, Any]:
    """Return the variables that both templates use."""
    effects = analysis.effects
    further, unmeasured = tables.further(analysis)
    return {
        "name": analysis.sweep.folder.resolve().name,
        "analysis": analysis,
        "conclusions": words.conclusions(analysis),
        "arms": tables.arms(analysis),
        "comparisons": tables.comparisons(analysis.contrasts),
        "repeats": tables.comparisons([contrast for *_, contrast in analysis.repeats]),
        "effects": effects,
        "grid": tables.grid(analysis, effects)[0] if effects else None,
        "main_effects": tables.comparisons([*effects.main[0], *effects.main[1]]) if effects else None,
        "interactions": tables.interactions(effects) if effects else None,
        "costs": tables.costs(analysis),
        "classes": tables.classes(analysis),
        "further": further,
        "unmeasured": unmeasured,
        "folklore": tables.folklore(evaluate_claims(analysis)),
        "missing_runs": tables.missing_runs(analysis),
        "provenance": tables.provenance(analysis),
        "commands": tables.commands(analysis),
        "replicates": statistics.REPLICATES,
    }


def figures(analysis: SweepAnalysis) -> dict[str, Any]:
    """Return the figures, which only the HTML page shows."""
    most_certain = sorted(analysis.compared, key=lambda c: (c.p_adjusted, -abs(c.difference)))[:MAX_DRAWN]
    contrasts = sorted(most_certain, key=lambda c: -abs(c.difference))
    which = "" if len(contrasts) == len(analysis.compared) else f", {len(contrasts)} of {len(analysis.compared)}"
    overview = [plots.seeds_panel(analysis)] if any(analysis.runs) else []
    if contrasts:
        overview.append(plots.differences_panel(analysis, contrasts, f"Differences between arms{which}"))
    crops, without_crops = pictures.crop_pictures(analysis)
    return {
        "overview": overview,
        "cost_figures": plots.cost_panels(analysis),
        "curves": [plots.curve_panel(analysis, curve) for curve in diagnostics.curves(analysis)],
        "crops": crops,
        "without_crops": without_crops,
        "shades": plots.shades(tables.grid(analysis, analysis.effects)[1]) if analysis.effects else None,
    }


def html(analysis: SweepAnalysis) -> str:
    """Return one self-contained page: it loads nothing."""
    return templates().get_template("page.html.jinja").render(contents(analysis) | figures(analysis))


def markdown(analysis: SweepAnalysis) -> str:
    return templates().get_template("page.md.jinja").render(contents(analysis))
