"""Format the results of the benchmark as text."""

from collections.abc import Sequence

from unet.benchmark.loader import LoaderSpeed
from unet.benchmark.networks import NetworkSpeed, Peak
from unet.benchmark.operators import REFERENCES, OperatorCost

SPEED_COLUMNS = ("ratio", "GFLOP/s", "of peak")
HEADER = ("network", "format", "params", "GFLOP", "step ms", *SPEED_COLUMNS, "infer ms", *SPEED_COLUMNS)


def network_table(networks: Sequence[NetworkSpeed], peaks: Sequence[Peak]) -> str:
    """Return a table of networks and a legend of its columns."""
    lines: list[Sequence[str]] = [HEADER]
    for network in networks:
        cells = [network.name, network.format, f"{network.parameters / 1e6:.1f} M", f"{network.gflops:.1f}"]
        for speed in (network.training, network.inference):
            cells += [f"{speed.ms:.1f}", f"{speed.ratio:.2f}"]
            cells += [f"{speed.gflops_per_s:,.0f}", f"{speed.peak_fraction:.0%}"]
        lines.append(cells)
    legend = [
        "ms: median of the rounds. ratio: time over this project's, median of the ratios within a round.",
        "GFLOP: one forward pass on one image (a multiply-add counts as two); a training step counts as three.",
        *(f"peak of {p.dtype}: {p.gflops_per_s:,.0f} GFLOP/s, a 3x3 convolution, {p.convolution}." for p in peaks),
    ]
    return "\n".join([align_columns(lines), "", *legend])


def align_columns(lines: Sequence[Sequence[str]], text_columns: int = 2) -> str:
    """Return lines with text aligned left, numbers aligned right, and a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if index < text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def operator_table(costs: Sequence[OperatorCost]) -> str:
    """Return a table of operators and a legend of its columns."""
    gpu = any(cost.peak_bytes is not None for cost in costs)
    header = ("kind", "operator", "infer ms", "ratio", "train ms", "ratio", "saved MiB", *["peak MiB"] * gpu)
    lines: list[Sequence[str]] = [header]
    for cost in costs:
        times = [(cost.forward_ms, cost.forward_ratio), (cost.training_ms, cost.training_ratio)]
        cells = [text for ms, ratio in times for text in (f"{ms:.2f}", "" if ratio is None else f"{ratio:.2f}")]
        sizes = [size for size in (cost.saved_bytes, cost.peak_bytes) if size is not None]
        lines.append([cost.kind, cost.name, *cells, *(f"{size / 2**20:.1f}" for size in sizes)])
    references = " or ".join(f"{name} ({kind})" for kind, name in REFERENCES.items())
    legend = [
        "infer: forward in evaluation mode. train: forward and backward. ms: median of the rounds.",
        f"ratio: time over that of {references}, median of the ratios within a round.",
        "saved: tensors saved for the backward pass, the input included, parameters not.",
        *["peak: largest additional memory during the forward and the backward pass."] * gpu,
    ]
    return "\n".join([align_columns(lines), "", *legend])


def loader_line(speed: LoaderSpeed) -> str:
    """Return one line that says whether the loader is fast enough."""
    load = speed.needed_per_s / speed.samples_per_s
    if speed.num_workers == 0:
        verdict = f"without workers, loading adds {load:.1%} to the time of a step"
    elif load <= 1:
        verdict = f"{1 / load:.1f} times what is needed"
    else:
        verdict = f"too slow: only {1 / load:.0%} of what is needed"
    return (
        f"data loader of configs/train.yaml, {speed.num_workers} workers, batches of "
        f"{' x '.join(map(str, speed.image_shape))}, alone: {speed.samples_per_s:,.0f} images/s; "
        f"its training step needs {speed.needed_per_s:,.0f} images/s: {verdict}"
    )
