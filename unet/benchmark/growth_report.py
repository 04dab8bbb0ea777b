"""Show the growth of a training step as text and as a plot."""

from collections.abc import Sequence
from pathlib import Path

from unet.benchmark.growth import Growth
from unet.benchmark.tables import align_columns
from unet.io.atomic import atomic_write

MEASURES = (("ms", "flops", "time", "FLOPs", 1.0), ("peak_bytes", "held_bytes", "memory", "bytes to hold", 2.0**20))
"""A measured cost, the computed one it is compared with, their names, and the unit it is plotted in."""
TOLERANCE = 0.1
"""A larger difference between a measured and a computed exponent is reported."""


def growth_table(growths: Sequence[Growth]) -> str:
    """Return a table of all steps, a table of the exponents, and a line for every exponent that deviates."""
    lines: list[Sequence[str]] = [("varied", "value", "step ms", "GFLOP", "GFLOP/s", "peak MiB", "to hold MiB")]
    for growth in growths:
        for value, cost in zip(growth.values, growth.costs, strict=True):
            cells = (f"{cost.ms:.1f}", f"{cost.flops / 1e9:.1f}", f"{cost.flops / cost.ms / 1e6:,.0f}")
            sizes = (f"{size / 2**20:,.0f}" for size in (cost.peak_bytes, cost.held_bytes))
            lines.append((growth.varied, value, *cells, *sizes))
    exponents: list[Sequence[str]] = [("exponent of", "", "step ms", "GFLOP", "peak MiB", "to hold MiB")]
    deviations = []
    for growth in growths:
        cells = []
        for measured, computed, name, computed_name, _ in MEASURES:
            slope, expected = growth.exponent(measured), growth.exponent(computed)
            cells += [f"{slope:.2f}", f"{expected:.2f}"]
            if abs(slope - expected) > TOLERANCE:
                deviations.append(
                    f"{name} grows with {growth.varied}^{slope:.2f}, the {computed_name} with ^{expected:.2f}"
                )
        exponents.append((growth.varied, "", *cells))
    legend = [
        "ms: median of the rounds. peak: largest memory of the first three steps less what was used before them.",
        "to hold: optimizer state and what forward saves for backward, or gradients if more.",
        "exponent: slope of the log-log line.",
        f"deviations of more than {TOLERANCE}: {'; '.join(deviations) or 'none'}",
    ]
    return "\n".join([align_columns(lines), "", align_columns(exponents), "", *legend])


def plot_growth(growths: Sequence[Growth], path: Path) -> None:
    """Plot time and memory against what is varied, with the computed growth, and write the plot atomically."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from unet.report.plots import COLORS, STYLE

    with rc_context(STYLE):
        figure = Figure((3 * len(growths), 5.0), layout="constrained")
        grid = figure.subplots(2, len(growths), sharey="row", squeeze=False)
        for row, (measured, computed, name, computed_name, unit) in zip(grid, MEASURES, strict=True):
            for axes, growth in zip(row, growths, strict=True):
                values = [getattr(cost, measured) / unit for cost in growth.costs]
                amounts = [getattr(cost, computed) for cost in growth.costs]
                expected = [values[0] * amount / amounts[0] for amount in amounts]
                label = f"{name}: exponent {growth.exponent(measured):.2f}"
                axes.plot(growth.factors, values, "o-", color=COLORS[0], label=label)
                label = f"{computed_name}: {growth.exponent(computed):.2f}"
                axes.plot(growth.factors, expected, "--", color=COLORS[1], label=label)
                axes.set_xscale("log", base=2)
                axes.set_yscale("log", base=2)
                axes.set_xticks(growth.factors, growth.values)
                axes.yaxis.set_major_formatter("{x:g}")
                axes.set_xlabel(growth.varied)
                axes.legend(frameon=False, fontsize=8)
            row[0].set_ylabel("step (ms)" if unit == 1 else "peak memory (MiB)")
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=150)
