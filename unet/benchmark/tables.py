"""Results of the benchmark as text."""

from collections.abc import Sequence

from unet.benchmark.loader import LoaderSpeed
from unet.benchmark.networks import Peak, Row
from unet.benchmark.operators import REFERENCES, Cost

MEASURED = ("ratio", "GFLOP/s", "of peak")
HEADER = ("network", "form", "params", "GFLOP", "step ms", *MEASURED, "infer ms", *MEASURED)


def network_table(rows: Sequence[Row], peaks: Sequence[Peak]) -> str:
    """Return a table of networks and a legend of its columns."""
    lines: list[tuple[str, ...]] = [HEADER]
    for r in rows:
        speeds = [
            cell
            for speed in (r.training, r.inference)
            for cell in (
                f"{speed.ms:.1f}",
                f"{speed.ratio:.2f}",
                f"{speed.gflops_per_s:,.0f}",
                f"{speed.share_of_peak:.0%}",
            )
        ]
        lines.append((r.name, r.form, f"{r.parameters / 1e6:.1f} M", f"{r.gflops:.1f}", *speeds))
    legend = [
        "ms: median of the rounds. ratio: time over this project's, median of the ratios within a round.",
        "GFLOP: one forward pass on one image (a multiply-add counts two); a training step counts as three.",
        *(f"peak of {p.dtype}: {p.gflops_per_s:,.0f} GFLOP/s, a 3x3 convolution, {p.convolution}." for p in peaks),
    ]
    return "\n".join([aligned(lines), "", *legend])


def aligned(lines: Sequence[Sequence[str]], text_columns: int = 2) -> str:
    """Return lines with aligned columns: text to the left, numbers to the right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(n) if i < text_columns else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def operator_table(costs: Sequence[Cost]) -> str:
    """Return a table of operators and a legend of its columns."""
    gpu = any(cost.peak is not None for cost in costs)
    lines = [("kind", "operator", "infer ms", "ratio", "train ms", "ratio", "kept MiB", *(["peak MiB"] if gpu else []))]
    for cost in costs:
        times = (
            f"{cost.forward_ms:.2f}",
            ratio(cost.forward_ratio),
            f"{cost.training_ms:.2f}",
            ratio(cost.training_ratio),
        )
        peak = [] if cost.peak is None else [mebibytes(cost.peak)]
        lines.append((cost.kind, cost.name, *times, mebibytes(cost.kept), *peak))
    references = " or ".join(f"{name} ({kind})" for kind, name in REFERENCES.items())
    legend = [
        "infer: forward in evaluation mode. train: forward and backward. ms: median of the rounds.",
        f"ratio: time over that of {references}, median of the ratios within a round.",
        "kept: for the backward pass, what is kept of the input included, parameters not.",
        *(["peak: beyond what was there before, at the worst moment of forward and backward."] if gpu else []),
    ]
    return "\n".join([aligned(lines), "", *legend])


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f}"


def loader_line(speed: LoaderSpeed) -> str:
    """Return whether the loader keeps up; without workers it adds to the time of every step."""
    share = speed.needed_per_s / speed.samples_per_s
    if speed.num_workers == 0:
        verdict = f"without workers, loading adds {share:.1%} to the time of a step"
    elif share <= 1:
        verdict = f"{1 / share:.1f} times what is needed"
    else:
        verdict = f"too slow: only {1 / share:.0%} of what is needed"
    return (
        f"data loader of configs/train.yaml, {speed.num_workers} workers, batches of "
        f"{' x '.join(map(str, speed.image_shape))}, alone: {speed.samples_per_s:,.0f} samples/s; "
        f"its training step takes in {speed.needed_per_s:,.0f} samples/s: {verdict}"
    )
