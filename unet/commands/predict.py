"""Predict images, volumes or sequences of any size with a trained network; docs/predict.md says what each key does."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.runs.cli import hydra_script, require_keys

SWITCHES = ("tta", "probabilities", "overlays", "sheet", "transforms", "overwrite")


@hydra_script("predict")
def main(config: DictConfig) -> None:
    """Predict every file of ``input``; exit with status 1 where one failed."""
    require_keys(config, ("ckpt", "input", "output"), "predict")

    from unet import load
    from unet.hardware import channels_last, select_device, to_memory_format
    from unet.inference.options import PredictOptions
    from unet.io.atomic import sha256
    from unet.prediction.predict_folder import FAILED, BatchOptions, list_images, predict_files, write_contact_sheet
    from unet.training.config_limits import SWITCH, check_values

    check_values(config, dict.fromkeys(SWITCHES, SWITCH))
    device = select_device(str(config.device), config.threads)
    ckpt, output = Path(str(config.ckpt)).expanduser(), Path(str(config.output)).expanduser()
    model = load(ckpt).to(device)
    to_memory_format(model, channels_last)
    tile: Any = OmegaConf.to_container(config.tile) if OmegaConf.is_list(config.tile) else config.tile
    options = PredictOptions(tile, config.overlap, config.tta, config.batch, config.precision, config.transforms)
    overlays = config.overlays or config.sheet
    order = BatchOptions(output, sha256(ckpt), options, config.probabilities, overlays, config.overwrite)
    rows = predict_files(model, list_images(str(config.input)), order, print_row)
    if config.sheet and (sheet := write_contact_sheet(rows, order, model)):
        print(sheet)
    print_counts(rows, output)
    if any(row.state == FAILED for row in rows):
        sys.exit(1)


def print_row(row: Any) -> None:
    """Print what became of one file."""
    took = f" in {row.seconds:.1f} s" if row.seconds else ""
    print(f"{row.path}: {row.state}{took}{f', {row.message}' if row.message else ''}", flush=True)


def print_counts(rows: list[Any], output: Path) -> None:
    """Print how many files were done, skipped and failed, and why."""
    from rich.console import Console
    from rich.table import Table

    from unet.prediction.predict_folder import DONE, FAILED, SKIPPED

    table = Table("files", "count", title=f"labels in {output}", title_justify="left")
    for state in (DONE, SKIPPED, FAILED):
        table.add_row(state, str(sum(row.state == state for row in rows)))
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row.state == FAILED:
            print(f"error: {row.message}", file=sys.stderr)


if __name__ == "__main__":
    main()
