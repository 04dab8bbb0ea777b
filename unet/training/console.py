"""Print the summary of a run before the training, and its metrics afterwards."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unet.analysis.network_summary import NetworkSummary
from unet.data import SegmentationData
from unet.diagnostics.histogram_baseline import histogram_kind
from unet.io.run_folder import CHECKPOINTS, LAST
from unet.network.geometry import level_sizes, times
from unet.network.registry import operator_name
from unet.runs.cli import program_name
from unet.task.module import SegmentationTask
from unet.training.data_warnings import data_warnings
from unet.training.initial_weights import LoadedWeights

console = Console(soft_wrap=True, highlight=False)


def print_summary(
    task: SegmentationTask, data: SegmentationData, summary: NetworkSummary, precision: Any, device: str
) -> None:
    """Print operators and sizes per level, parameters, data, device and precision."""
    net: Any = task.net
    sizes = level_sizes(summary.size, net.strides)
    table = Table("level", "size", "channels", "downsampling", "upsampling", title="U-Net", title_justify="left")
    for level, (size, width) in enumerate(zip(sizes, net.widths, strict=True)):
        if level < len(net.ups):
            operators = net.encoder_name or operator_name(net.downs[level]), operator_name(net.ups[level])
        else:
            operators = f"context: {operator_name(net.context)}", ""
        table.add_row(str(level), times(size), str(width), *operators)
    console.print(table)
    console.print(
        f"{summary.parameters:,} parameters, {summary.flops / 1e9:.2f} GFLOP for an input of {times(summary.size)}; "
        f"receptive field of the bottleneck: {times(summary.fields.encoder[-1])}"
    )
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in data.samples.items())
    cached = sum(samples.bytes for samples in data.samples.values()) / 2**20
    console.print(f"data: {counts} images; {data.source.num_classes} classes; {cached:.0f} MiB cached in memory")
    train = data.samples["train"]
    if train.num_missing:
        share = train.num_missing / train.num_pixels
        console.print(f"{share:.1%} of the training pixels have no data (NaN or nodata): their labels are ignored")
    warnings = list(data_warnings(data))
    for text in warnings:
        console.print(f"warning: {text}", markup=False)
    if warnings:
        console.print(f"{program_name('check')} lists the files", markup=False)
    console.print(f"device: {device}; precision: {precision}")
    if data.eval_split != "test":
        console.print("no test split: the final metrics are those of the validation split, named val/...")


def print_initial_weights(weights: LoadedWeights, leakage: str) -> None:
    """Print what ``init`` loaded, a warning if that is little, and one of images that its run was trained on."""
    for line in filter(None, (weights.summary(), weights.warning(), leakage)):
        console.print(line, markup=False)


def print_result(metrics: Mapping[str, Any], data: SegmentationData, task: SegmentationTask, out: Path) -> None:
    """Print the final metrics, the run folder, and the command that opens it in TensorBoard."""
    checkpoint = "best checkpoint by val/miou" if "best/epoch" in metrics else "last checkpoint"
    print_scores(metrics, data.eval_split, task.classes, checkpoint)
    print_baseline(metrics, data)
    console.print(
        f"trained for {metrics['time/train_seconds']:.0f} s at {metrics['time/samples_per_second']:.1f} samples/s"
    )
    command = shlex.join(["tensorboard", "--logdir", str(out)])
    best = out / CHECKPOINTS / ("best.ckpt" if "best/epoch" in metrics else LAST)
    predict = f"{program_name('predict')} {shlex.join([f'ckpt={best}', 'input=FOLDER', 'output=LABELS'])}"
    console.print(f"results in {out}\npredict with: {predict}\nview them with: {command}", markup=False, soft_wrap=True)


def print_scores(metrics: Mapping[str, Any], split: str, classes: Sequence[str], checkpoint: str) -> None:
    """Print the metrics of a split, class by class, with the name of the checkpoint as a title."""
    count = metrics[f"{split}/images"]
    title = f"{split} metrics of {count} image{'s' * (count != 1)}, {checkpoint}"
    table = Table("class", "IoU", "Dice", title=title, title_justify="left")

    def to_text(key: str) -> str:
        return f"{metrics[key]:.4f}" if key in metrics else "absent"

    for name in classes:
        table.add_row(name, to_text(f"{split}/iou/{name}"), to_text(f"{split}/dice/{name}"))
    table.add_section()
    table.add_row("mean", to_text(f"{split}/miou"), to_text(f"{split}/dice"))
    console.print(table)
    if absent := metrics.get(f"{split}/absent"):
        console.print(
            f"warning: {split} has no pixel of {', '.join(absent)} and none is predicted, so the means are of the "
            f"other classes" + (" only: they say nothing about the network" if len(absent) == len(classes) - 1 else ""),
            markup=False,
        )
    console.print(
        f"pixel accuracy {to_text(f'{split}/accuracy')}, mean class accuracy {to_text(f'{split}/class_accuracy')}"
    )


def print_baseline(metrics: Mapping[str, Any], data: SegmentationData) -> None:
    """Print the score of the colour histogram, and a warning if that of the network is below it."""
    if "baseline/miou" not in metrics:
        return
    name, baseline, miou = f"{data.eval_split} mIoU", metrics["baseline/miou"], metrics[f"{data.eval_split}/miou"]
    console.print(f"baseline ({histogram_kind(data.channels)} histogram): {name} {baseline:.3f}")
    if miou < baseline:
        console.print(
            f"warning: the network's {name}, {miou:.3f}, is below the baseline, which sees single pixels only: the "
            f"network is not trained; train longer, or check data and learning rate"
        )


def print_diagnostics(diagnostics: Mapping[str, float]) -> None:
    """Print the diagnostics of a split."""
    table = Table("diagnostic", "value", title_justify="left")
    for name, value in diagnostics.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
