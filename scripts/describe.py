"""A network level by level, before any training: sizes, receptive fields, parameters, FLOPs, memory.

    python scripts/describe.py model.down=strided input=3x361x481
    python scripts/describe.py 'model.stride=[[1,2,2],2,2]' model.depth=3 input=1x32x128x128 object=40
    python scripts/describe.py model.depth=5 input=3x5400

The input is channels and then its size along one, two or three axes. FLOPs are those of one forward pass of one image,
memory what one image keeps for the backward pass in float32. Receptive fields are measured, not declared.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig, OmegaConf

from unet.command import script
from unet.errors import UserError


@script("describe")
def main(config: DictConfig) -> None:
    import warnings

    from unet.anatomy import anatomy
    from unet.matching import match_width

    channels, *size = parse(config.input or "3x256x256")
    if not 1 <= len(size) <= 3:
        raise UserError(f"input={config.input}: expected channels and 1 to 3 sizes, such as 3x361x481")
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    if model["spatial_dims"] not in (None, len(size)):
        raise UserError(f"model.spatial_dims={model['spatial_dims']}: input={config.input} has {len(size)} axes")
    model |= {"in_channels": channels, "num_classes": config.num_classes, "spatial_dims": len(size)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the bottleneck is")  # said below
        show(anatomy(match_width(model, size), size, object_size=config.object))


def parse(text: Any) -> list[int]:
    """``3x361x481`` -> [3, 361, 481]."""
    numbers = str(text).split("x")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UserError(f"input={text}: expected positive numbers joined by x: channels and size, such as 3x361x481")
    return [int(number) for number in numbers]


def show(found: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from unet.anatomy import COLUMNS, rows
    from unet.geometry import times

    console = Console(highlight=False)
    console.width = max(console.width, 132)  # a table that does not fit is worth less than one that has to be scrolled
    padded = [n + before + after for n, (before, after) in zip(found.size, found.padding, strict=True)]
    padding = ", ".join(f"{before} before and {after} after" for before, after in found.padding)
    console.print(f"Input {times(found.size)}, padded to {times(padded)} ({padding}); the logits are cropped back")
    table = Table(title="U-Net", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("part", "operator", "size") else "right")
    for cells in rows(found):
        table.add_row(*cells)
    table.add_section()
    totals = f"{found.parameters:,}", f"{found.flops / 1e6:,.1f}", f"{found.memory / 2**20:,.1f}"
    table.add_row("total", "", "", "", "", "", "", *totals)
    console.print(table)
    console.print("Sizes follow from windows of k samples with stride s, dilation d and padding p on either side:")
    for stage in found.stages:
        if stage.formula:
            console.print(f"  {stage.name:8} {stage.formula}")
    console.print(
        f"The bottleneck sees {times(found.fields.encoder[-1])} samples of the input, with its context "
        f"{times(found.fields.context)}; a logit {times(found.fields.logits)}"
    )
    for warning in found.warnings:
        console.print(f"Mind: {warning}")


if __name__ == "__main__":
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]  # nothing is left behind
    main()
