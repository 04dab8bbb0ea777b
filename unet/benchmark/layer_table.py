"""Format the layers of a training step as text."""

from collections.abc import Sequence

from unet.benchmark.layers import LayerSpeed, PartSpeed, StepSpeed
from unet.benchmark.step_parts import PARTS
from unet.benchmark.tables import align_columns


def layer_table(step: StepSpeed) -> str:
    """Return a table of the convolutions, a table of the other layers, and their sum against the step."""
    header = ["convolution", "output", "calls"]
    for heading in ("forward ms", "input ms", "weight ms"):
        header += [heading, "GFLOP/s", "of peak"]
    lines = [[*header, "of step"]]
    lines += [layer_cells(layer, PARTS) for layer in step.convolutions]
    others = [["layer", "size", "calls", "forward ms", "GB/s", "backward ms", "GB/s", "of step"]]
    others += [layer_cells(layer, ("forward", "backward")) for layer in step.others]
    sum_ms = step.convolutions_ms + step.others_ms + step.optimizer_ms
    peak = step.peak
    return "\n".join(
        [
            align_columns(lines),
            "",
            align_columns(others),
            "",
            "ms: all calls of a step, median of the rounds. input, weight: gradients of the input and of the weights.",
            "(%): the kernel on contiguous arguments and without a bias, where the step has another layout or a bias.",
            "GB/s: arguments and results, each read or written once; small ones are in the cache when timed alone.",
            f"peak of {peak.dtype}: {peak.gflops_per_s:,.0f} GFLOP/s, a 3x3 convolution, {peak.convolution}.",
            f"convolutions {step.convolutions_ms:.1f} ms + other layers {step.others_ms:.1f} ms + optimizer "
            f"{step.optimizer_ms:.1f} ms = {sum_ms:.1f} ms, "
            f"{step.sum_fraction:.0%} of a whole step of {step.step_ms:.1f} ms",
        ]
    )


def layer_cells(layer: LayerSpeed, parts: Sequence[str]) -> list[str]:
    """Return the cells of a layer's line."""
    cells = [layer.layer, layer.size, str(layer.count)]
    for name in parts:
        cells += part_cells(layer.parts.get(name), len(parts) == len(PARTS))
    return [*cells, f"{layer.step_fraction:.1%}"]


def part_cells(part: PartSpeed | None, has_peak: bool) -> list[str]:
    """Return the time, the rate and the fraction of the peak of a part, empty where the step has no such part."""
    if part is None:
        return [""] * (3 if has_peak else 2)
    cells = [f"{part.ms:.2f}", f"{part.rate:,.0f}"]
    if part.peak_fraction is None:
        return cells
    plain = "" if part.plain_peak_fraction is None else f" ({part.plain_peak_fraction:.0%})"
    return [*cells, f"{part.peak_fraction:.0%}{plain}"]
