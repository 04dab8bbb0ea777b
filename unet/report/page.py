"""Render an analysis as HTML and as Markdown."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import unet.report.diagnostic_curves as diagnostic_curves
import unet.report.embedded_images as embedded_images
import unet.report.plots as plots
import unet.report.summary_text as summary_text
import unet.report.tables as tables
from unet.report.analysis import SweepAnalysis
from unet.report.common_claims import evaluate_claims

MAX_PLOTTED = 20
"""Questions in the figure; the table has all."""


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
    table = analysis.table
    further, unmeasured = tables.diagnostic_table(analysis)
    values = {
        "name": analysis.sweep.folder.resolve().name,
        "analysis": analysis,
        "conclusions": summary_text.conclusions(analysis),
        "questions": tables.question_table(analysis),
        "arms": tables.arm_table(analysis),
        "comparisons": tables.comparison_table(analysis.contrasts),
        "repeats": tables.comparison_table([contrast for *_, contrast in analysis.repeats]),
        "two_way": table,
        "grid": tables.two_way_table(analysis, table)[0] if table else None,
        "interactions": tables.interaction_table(table) if table else None,
        "classes": tables.class_table(analysis),
        "further": further,
        "unmeasured": unmeasured,
        "claims": tables.claim_table(evaluate_claims(analysis)),
        "missing_runs": tables.missing_run_table(analysis),
        "provenance": tables.provenance_table(analysis),
        "commands": tables.command_table(analysis),
        "unit": analysis.unit,
    }
    unchanged = ("missing_runs", "provenance", "commands")  # they have both columns and the words of commands
    return {
        key: tables.with_unit(value, analysis) if isinstance(value, tables.Table) and key not in unchanged else value
        for key, value in values.items()
    }


def figures(analysis: SweepAnalysis) -> dict[str, Any]:
    """Return the figures of the HTML page."""
    known = [question for question in analysis.questions if question.contrast.seeds]
    largest = sorted(known, key=lambda question: -abs(question.contrast.difference))[:MAX_PLOTTED]
    crops, without_crops = embedded_images.prediction_images(analysis)
    return {
        "answers": [plots.plot_questions(analysis, largest)] if largest else [],
        "overview": [plots.plot_runs(analysis)] if any(analysis.finished) else [],
        "cost_figures": plots.plot_costs(analysis),
        "curves": [plots.plot_curve(analysis, curve) for curve in diagnostic_curves.curves(analysis)],
        "crops": crops,
        "without_crops": without_crops,
        "shades": plots.cell_colors(tables.two_way_table(analysis, analysis.table)[1]) if analysis.table else None,
    }


def render_html(analysis: SweepAnalysis) -> str:
    """Render one self-contained page, which loads no other files."""
    return templates().get_template("page.html.jinja").render(contents(analysis) | figures(analysis))


def render_markdown(analysis: SweepAnalysis) -> str:
    """Render the report without figures."""
    return templates().get_template("page.md.jinja").render(contents(analysis))


def render_table(table: tables.Table) -> str:
    """Render a table as Markdown."""
    module: Any = templates().get_template("table.md.jinja").module
    return str(module.show(table)).strip()
