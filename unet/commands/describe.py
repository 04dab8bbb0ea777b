"""Describe a network level by level before training: sizes, receptive fields, parameters, FLOPs, memory."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.runs.cli import hydra_script, parse_size


@hydra_script("describe")
def main(config: DictConfig) -> None:
    """Print the network for the input: channels, then its size along one, two or three axes."""
    import warnings

    from rich.console import Console
    from rich.table import Table

    from unet.analysis.network_summary import COLUMNS, summarize_network, table_rows
    from unet.analysis.width_matching import match_width
    from unet.network.encoders import split_encoder
    from unet.network.geometry import times
    from unet.training.config_limits import validate_config

    validate_config(config)
    channels, *size = parse_size("input", config.input or "3x256x256", "3x361x481: channels, then size")
    if not 1 <= len(size) <= 3:
        raise UserError(f"input={config.input}: expected channels and 1 to 3 sizes, such as 3x361x481")
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    if model["spatial_dims"] not in (None, len(size)):
        raise UserError(f"model.spatial_dims={model['spatial_dims']}: input={config.input} has {len(size)} axes")
    model["encoder"], _ = split_encoder(model["encoder"])
    model |= {"in_channels": channels, "num_classes": config.num_classes, "spatial_dims": len(size)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the bottleneck is")  # printed below
        summary = summarize_network(match_width(model, size), size, object_size=config.object)
    console = Console(highlight=False)
    console.width = max(console.width, 132)  # a table that is too wide is easier to scroll than to read wrapped
    padded = [n + sum(pads) for n, pads in zip(summary.size, summary.padding, strict=True)]
    padding = ", ".join(f"{start} before and {end} after" for start, end in summary.padding)
    console.print(f"Input {times(summary.size)}, padded to {times(padded)} ({padding}); the logits are cropped")
    table = Table(*COLUMNS[:3], title="U-Net", title_justify="left")
    for name in COLUMNS[3:]:
        table.add_column(name, justify="right")
    for cells in table_rows(summary):
        table.add_row(*cells)
    table.add_section()
    totals = f"{summary.parameters:,}", f"{summary.flops / 1e6:,.1f}", f"{summary.memory / 2**20:,.1f}"
    table.add_row("total", *[""] * 6, *totals)
    console.print(table)
    if summary.checkpointing:
        console.print("Checkpointing: total MiB = the outputs of the levels, and all activations of the largest one")
    console.print("Sizes for a kernel of k samples, stride s, dilation d and padding p on each side:")
    for layer in summary.layers:
        if layer.formula:
            console.print(f"  {layer.name:8} {layer.formula}")
    console.print(
        f"Receptive field of the bottleneck: {times(summary.fields.encoder[-1])} input samples, with its context "
        f"{times(summary.fields.context)}; of a logit: {times(summary.fields.logits)}"
    )
    for warning in summary.warnings:
        console.print(f"Warning: {warning}")
