"""Describe a network level by level, before any training: sizes, receptive fields, parameters, FLOPs, memory."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.runs.cli import hydra_script, parse_size


@hydra_script("describe")
def main(config: DictConfig) -> None:
    """Print the network on the input: channels, then its size along one, two or three axes."""
    import warnings

    from unet.analysis.network_summary import summarize_network
    from unet.analysis.width_matching import match_width
    from unet.training.config_limits import validate_config

    validate_config(config)
    channels, *size = parse_size("input", config.input or "3x256x256", "3x361x481: channels, then size")
    if not 1 <= len(size) <= 3:
        raise UserError(f"input={config.input}: expected channels and 1 to 3 sizes, such as 3x361x481")
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    if model["spatial_dims"] not in (None, len(size)):
        raise UserError(f"model.spatial_dims={model['spatial_dims']}: input={config.input} has {len(size)} axes")
    model |= {"in_channels": channels, "num_classes": config.num_classes, "spatial_dims": len(size)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the bottleneck is")  # said below
        print_summary(summarize_network(match_width(model, size), size, object_size=config.object))


def print_summary(found: Any) -> None:
    """Print the table, the formulas of the sizes, the receptive fields and the warnings."""
    from rich.console import Console
    from rich.table import Table

    from unet.analysis.network_summary import COLUMNS, table_rows
    from unet.network.geometry import times

    console = Console(highlight=False)
    console.width = max(console.width, 132)  # a table that does not fit is worth less than one that has to be scrolled
    padded = [n + before + after for n, (before, after) in zip(found.size, found.padding, strict=True)]
    padding = ", ".join(f"{before} before and {after} after" for before, after in found.padding)
    console.print(f"Input {times(found.size)}, padded to {times(padded)} ({padding}); the logits are cropped back")
    table = Table(title="U-Net", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("part", "operator", "size") else "right")
    for cells in table_rows(found):
        table.add_row(*cells)
    table.add_section()
    totals = f"{found.parameters:,}", f"{found.flops / 1e6:,.1f}", f"{found.memory / 2**20:,.1f}"
    table.add_row("total", "", "", "", "", "", "", *totals)
    console.print(table)
    console.print("Sizes follow from windows of k samples with stride s, dilation d and padding p on either side:")
    for stage in found.layers:
        if stage.formula:
            console.print(f"  {stage.name:8} {stage.formula}")
    console.print(
        f"The bottleneck sees {times(found.fields.encoder[-1])} samples of the input, with its context "
        f"{times(found.fields.context)}; a logit {times(found.fields.logits)}"
    )
    for warning in found.warnings:
        console.print(f"Warning: {warning}")


if __name__ == "__main__":
    main()
