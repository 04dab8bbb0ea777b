"""Plot the figures as SVG, readable on a phone, in print and without color."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from unet.report.analysis import SweepAnalysis
from unet.report.comparison import BETTER, EQUAL, WORSE
from unet.report.diagnostic_curves import Curve, mean_lines
from unet.report.embedded_images import EmbeddedImage, data_uri
from unet.report.metrics import is_lower_better, metric_value
from unet.report.questions import Question
from unet.report.summary_text import question_name

Array = np.ndarray

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""For the color-blind (Okabe & Ito 2008, https://jfly.uni-koeln.de/color/), without the pale yellow."""
MARKERS, DASHES = "osD^vPX", ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a setting may hold a dollar sign
    "svg.fonttype": "none",  # text stays text: small, and sharp at any size
    "svg.hashsalt": "report",  # the same runs give the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
WIDTH = 4.4
"""Inches of a panel: about a phone's width."""
COSTS = (
    ("model/parameters", "parameters"),
    ("model/flops", "FLOPs of one image"),
    ("memory/peak_bytes", "peak memory (bytes)"),
)
VERDICT_COLORS = {BETTER: COLORS[1], WORSE: COLORS[1], EQUAL: COLORS[2]}
"""Orange and green; anything else is hollow."""


def draw_svg(heading: str, alt: str, height: float, draw) -> EmbeddedImage:
    """Return the SVG image that ``draw(axes)`` draws."""
    with rc_context(STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    return EmbeddedImage(heading, data_uri(buffer.getvalue(), "image/svg+xml"), alt)


def arm_style(arm: int) -> dict[str, Any]:
    """Return color and marker, unique among the first 49 arms."""
    return {"color": COLORS[arm % len(COLORS)], "marker": MARKERS[(arm + arm // len(COLORS)) % len(MARKERS)]}


MAX_NAME_LENGTH = 44
"""Characters of a name that fit beside the axes."""


def shorten(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def plot_runs(analysis: SweepAnalysis) -> EmbeddedImage:
    """Plot every run as a point and every arm's mean as a bar, the best arm on top; untrained runs as crosses."""
    means = analysis.scores.means()
    ranked = np.argsort(np.where(np.isfinite(means), -analysis.sign * means, math.inf), kind="stable")
    order = [int(arm) for arm in ranked if analysis.finished[arm]]

    def draw(axes: Axes) -> None:
        for row, arm in enumerate(order):
            values = analysis.scores.values[arm]
            known = np.isfinite(values)
            jitter = np.linspace(-0.16, 0.16, int(known.sum()))
            axes.plot(values[known], row + jitter, linestyle="", markersize=3.5, alpha=0.8, **arm_style(arm))
            axes.plot([means[arm], means[arm]], [row - 0.3, row + 0.3], color="black", linewidth=1.4)
            untrained = [
                analysis.finished[arm][run.replicate]
                for run in analysis.untrained
                if run.arm == arm and run.is_excluded
            ]
            scores = [metric_value(run.metrics, analysis.split, analysis.metric) for run in untrained]
            axes.plot(scores, [row] * len(scores), "x", color="#777777", markersize=4)
        labels = [shorten(analysis.arms[arm].label, 34) for arm in order]
        axes.set_yticks(range(len(order)), [f"{label}  {arm + 1}" for label, arm in zip(labels, order, strict=True)])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlabel(analysis.metric_name)
        axes.grid(axis="y", visible=False)

    alt = "Every run's score by arm with means; the numbers are in the table of arms."
    return draw_svg("Every run", alt, 0.75 + 0.3 * len(order), draw)


def plot_questions(analysis: SweepAnalysis, questions: Sequence[Question]) -> EmbeddedImage:
    """Plot the differences with their intervals and the margin of practical equality as a band (a forest plot).

    The thin line is the interval for other images.
    """

    def draw(axes: Axes) -> None:
        axes.axvspan(-analysis.margin, analysis.margin, color="#e3efe9", zorder=0)
        axes.axvline(0, color="#555555", linewidth=0.8)
        for row, question in enumerate(questions):
            contrast, verdict = question.contrast, analysis.verdict(question)
            color = VERDICT_COLORS.get(verdict, COLORS[0])
            axes.plot([contrast.wide_low, contrast.wide_high], [row, row], color=color, linewidth=0.7)
            axes.plot([contrast.low, contrast.high], [row, row], color=color, linewidth=2.2, solid_capstyle="butt")
            face = color if verdict in VERDICT_COLORS else "white"
            axes.plot(contrast.difference, row, "o", color=color, markerfacecolor=face, markersize=5)
        names = [shorten(question_name(analysis, question), MAX_NAME_LENGTH) for question in questions]
        axes.set_yticks(range(len(questions)), names)
        axes.set_ylim(len(questions) - 0.4, -0.6)
        axes.set_xlabel(f"difference in {analysis.metric_name}", loc="right")  # long names leave little width
        axes.grid(axis="y", visible=False)

    alt = "Differences with their intervals; the numbers are in the table of questions."
    return draw_svg("Answers (band: practically equal)", alt, 0.75 + 0.26 * len(questions), draw)


def plot_costs(analysis: SweepAnalysis) -> list[EmbeddedImage]:
    """Plot the score over each cost with the Pareto front."""
    images = []
    for metric, name in COSTS:
        costs = mean_lines(analysis, [metric])[:, 0]
        known = np.isfinite(costs) & np.isfinite(analysis.scores.means())
        if known.any():
            images.append(plot_cost(analysis, metric, name, costs, np.flatnonzero(known)))
    return images


def plot_cost(analysis: SweepAnalysis, metric: str, name: str, costs: Array, arms: Array) -> EmbeddedImage:
    """Plot the score of ``arms`` over one cost."""
    means = analysis.scores.means()
    sign = 1 if is_lower_better(metric) else -1

    def draw(axes: Axes) -> None:
        front = pareto_front(sign * costs[arms], analysis.sign * means[arms])
        axes.plot(costs[arms][front], means[arms][front], color="#999999", linewidth=1, zorder=1)
        for arm in arms:
            axes.plot(costs[arm], means[arm], linestyle="", markersize=6, **arm_style(arm))
            axes.annotate(str(arm + 1), (costs[arm], means[arm]), (4, 3), textcoords="offset points", fontsize=8)
        axes.set_xlabel(name)
        axes.set_ylabel(analysis.metric_name)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        axes.locator_params(axis="x", nbins=6)
        axes.margins(0.12)

    return draw_svg(name, f"Score over {name}; the numbers are in the table of costs.", 2.7, draw)


def pareto_front(costs: Array, scores: Array) -> Array:
    """Return the indices of the Pareto front, by cost."""
    front, best = [], -math.inf
    for index in np.lexsort((-scores, costs)):
        if scores[index] > best:
            front.append(int(index))
            best = scores[index]
    return np.array(front, int)


def plot_curve(analysis: SweepAnalysis, curve: Curve) -> EmbeddedImage:
    """Plot one line per arm with the arm's number at its end."""

    def draw(axes: Axes) -> None:
        positions = np.arange(len(curve.ticks))
        for arm, line in enumerate(curve.lines):
            dash = DASHES[arm // len(COLORS) % len(DASHES)]
            axes.plot(positions, line, linewidth=1.2, markersize=4, linestyle=dash, **arm_style(arm))
        ends = {arm: line[-1] for arm, line in enumerate(curve.lines) if math.isfinite(line[-1])}
        for rank, arm in enumerate(sorted(ends, key=lambda arm: ends[arm])):  # neighbors are staggered
            offset = (7 + 12 * (rank % 3), -3)
            axes.annotate(str(arm + 1), (positions[-1], ends[arm]), offset, textcoords="offset points", fontsize=8)
        axes.set_xticks(positions, curve.ticks)
        axes.set_xlabel(curve.x)
        axes.set_ylabel(curve.y)

    known = [analysis.arms[arm].label for arm, line in enumerate(curve.lines) if np.isfinite(line).any()]
    return draw_svg(curve.title, f"{curve.y} by {curve.x} of {', '.join(known)}.", 2.7, draw)


def cell_colors(values: Array) -> list[list[tuple[str, str]]]:
    """Return (background, text color) of every cell of a heat map; white without a value."""
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 1.0)

    def colors(value: float) -> tuple[str, str]:
        if not math.isfinite(value):
            return "#ffffff", "#111111"
        fraction = (value - low) / (high - low) if high > low else 0.0
        return to_hex(colormaps["Blues"](0.1 + 0.85 * fraction)), "#ffffff" if fraction > 0.5 else "#111111"

    return [[colors(value) for value in row] for row in values]
