"""Render an analysis as HTML and as Markdown."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import unet.report.diagnostic_curves as diagnostic_curves
import unet.report.embedded_images as embedded_images
import unet.report.plots as plots
import unet.report.statistics as statistics
import unet.report.summary_text as summary_text
import unet.report.tables as tables
from unet.report.analysis import SweepAnalysis
from unet.report.common_claims import evaluate_claims

MAX_PLOTTED = 20
"""Differences in the figure; the table has all."""


@cache
def templates() -> Environment:
    """Return the Jinja environment; HTML is escaped, Markdown cells have their own filter."""
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
    """Escape a text for a Markdown table: one line, no bars, no markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(str(text).split()))
    return escaped or " "


def contents(analysis: SweepAnalysis) -> dict[str, Any]:
    """Return the variables that both templates use."""
    effects = analysis.effects
    further, unmeasured = tables.diagnostic_table(analysis)
    values = {
        "name": analysis.sweep.folder.resolve().name,
        "analysis": analysis,
        "conclusions": summary_text.conclusions(analysis),
        "arms": tables.arm_table(analysis),
        "comparisons": tables.comparison_table(analysis.contrasts),
        "repeats": tables.comparison_table([contrast for *_, contrast in analysis.repeats]),
        "effects": effects,
        "grid": tables.two_way_table(analysis, effects)[0] if effects else None,
        "main_effects": tables.comparison_table([*effects.main[0], *effects.main[1]]) if effects else None,
        "interactions": tables.interaction_table(effects) if effects else None,
        "costs": tables.cost_table(analysis),
        "classes": tables.class_table(analysis),
        "further": further,
        "unmeasured": unmeasured,
        "folklore": tables.claim_table(evaluate_claims(analysis)),
        "missing_runs": tables.missing_run_table(analysis),
        "provenance": tables.provenance_table(analysis),
        "commands": tables.command_table(analysis),
        "replicates": statistics.REPLICATES,
        "unit": analysis.unit,
    }
    unchanged = ("missing_runs", "provenance", "commands")  # they have both columns and the words of commands
    return {
        key: tables.with_unit(value, analysis) if isinstance(value, tables.Table) and key not in unchanged else value
        for key, value in values.items()
    }


def figures(analysis: SweepAnalysis) -> dict[str, Any]:
    """Return the figures of the HTML page."""
    most_certain = sorted(analysis.family, key=lambda c: (c.p_adjusted, -abs(c.difference)))[:MAX_PLOTTED]
    contrasts = sorted(most_certain, key=lambda c: -abs(c.difference))
    selection = "" if len(contrasts) == len(analysis.family) else f", {len(contrasts)} of {len(analysis.family)}"
    overview = [plots.plot_runs(analysis)] if any(analysis.runs) else []
    if contrasts:
        overview.append(plots.plot_differences(analysis, contrasts, f"Differences between arms{selection}"))
    crops, without_crops = embedded_images.prediction_images(analysis)
    return {
        "overview": overview,
        "cost_figures": plots.plot_costs(analysis),
        "curves": [plots.plot_curve(analysis, curve) for curve in diagnostic_curves.curves(analysis)],
        "crops": crops,
        "without_crops": without_crops,
        "shades": plots.cell_colors(tables.two_way_table(analysis, analysis.effects)[1]) if analysis.effects else None,
    }


def render_html(analysis: SweepAnalysis) -> str:
    """Render one self-contained page, which loads no other files."""
    return templates().get_template("page.html.jinja").render(contents(analysis) | figures(analysis))


def render_markdown(analysis: SweepAnalysis) -> str:
    """Render the report without figures."""
    return templates().get_template("page.md.jinja").render(contents(analysis))
