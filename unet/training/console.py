"""The tables a run prints: what is about to be trained, and how it went."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unet.analysis.network_summary import NetworkSummary
from unet.data import SegmentationData
from unet.network.geometry import level_sizes, times
from unet.network.registry import operator_name
from unet.task.module import SegmentationTask

console = Console(soft_wrap=True, highlight=False)


def print_summary(
    task: SegmentationTask, data: SegmentationData, found: NetworkSummary, precision: Any, device: str
) -> None:
    """Operators and sizes per level, then parameters, data, device and precision."""
    net: Any = task.net
    sizes = level_sizes(data.example("train").shape[2:], net.strides)
    table = Table("level", "size", "width", "down to the next", "up from the next", title="U-Net", title_justify="left")
    for level, (size, width) in enumerate(zip(sizes, net.widths, strict=True)):
        if level < len(net.downs):
            names = operator_name(net.downs[level]), operator_name(net.ups[level])
        else:
            names = f"context: {operator_name(net.context)}", ""
        table.add_row(str(level), times(size), str(width), *names)
    console.print(table)
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in data.samples.items())
    kept = sum(samples.bytes for samples in data.samples.values()) / 2**20
    console.print(
        f"{found.parameters:,} parameters, {found.flops / 1e9:.2f} GFLOP for an input of {times(found.size)}; "
        f"the bottleneck sees {times(found.fields.encoder[-1])} of it"
    )
    console.print(f"data: {counts}; {data.source.num_classes} classes; {kept:.0f} MiB in memory")
    if data.in_two_splits:
        one, other = data.in_two_splits[0]
        console.print(
            f"warning: {len(data.in_two_splits)} images are in two splits, such as {one.name} and {other.name}: scores "
            f"will be too good; scripts/check_data.py names them all",
            markup=False,
        )
    console.print(f"device: {device}, precision {precision}")
    if data.eval_split != "test":
        console.print("there is no test split here: the final numbers are those of the validation split, named val/...")


def print_result(metrics: Mapping[str, Any], data: SegmentationData, task: SegmentationTask, out: Path) -> None:
    """The final scores, the folder, and how to look at it."""
    which = "best checkpoint by val/miou" if "best/epoch" in metrics else "last checkpoint, as none was validated"
    print_scores(metrics, data.eval_split, task.classes, which)
    console.print(
        f"trained {metrics['time/train_seconds']:.0f} s at {metrics['time/samples_per_second']:.1f} samples/s"
    )
    board = shlex.join(["tensorboard", "--logdir", str(out)])  # a name may hold {braces}, and [brackets]
    console.print(f"results in {out}\n{board}", markup=False, soft_wrap=True)


def print_scores(metrics: Mapping[str, Any], split: str, classes: Sequence[str], which: str) -> None:
    """The scores of a split, class by class; ``which`` says of what network."""
    table = Table("class", "IoU", "Dice", title=f"{split}, {which}", title_justify="left")

    def number(key: str) -> str:
        return f"{metrics[key]:.4f}" if key in metrics else "absent"

    for name in classes:
        table.add_row(name, number(f"{split}/iou/{name}"), number(f"{split}/dice/{name}"))
    table.add_section()
    table.add_row("mean", number(f"{split}/miou"), number(f"{split}/dice"))
    console.print(table)
    console.print(
        f"pixel accuracy {number(f'{split}/accuracy')}, mean class accuracy {number(f'{split}/class_accuracy')}"
    )


def print_diagnostics(diagnosed: Mapping[str, float]) -> None:
    """Every diagnostic of a split and its value."""
    table = Table("diagnostic", "value", title_justify="left")
    for name, value in diagnosed.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
