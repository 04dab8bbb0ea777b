"""Predict images, volumes or sequences of any size with a trained network.

    python scripts/predict.py ckpt=outputs/RUN/checkpoints/best.ckpt input=photos output=labels
    python scripts/predict.py ckpt=... 'input=scans/*.tif' output=labels overlays=true probabilities=true tta=true

Labels have their image's size and name, and as PNG the classes' colours. --help lists the keys; docs/predict.md says
what each does. The same command again skips what is done; a file that fails is named, and the exit status is 1.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig, OmegaConf

from unet.command import script, verbatim
from unet.errors import UserError


@script("predict")
def main(config: DictConfig) -> None:
    for key in ("ckpt", "input", "output"):
        if config[key] is None:
            raise UserError(f"{key}: is required; see python scripts/predict.py --help")
    for key in ("tta", "probabilities", "overlays", "sheet", "transforms", "overwrite"):
        if not isinstance(config[key], bool):
            raise UserError(f"{key}: expected true or false, found {config[key]!r}")

    from unet import load
    from unet.apply import PredictOptions
    from unet.hardware import channels_last, lay, settle
    from unet.prediction.folder import FAILED, BatchOptions, files_of, predict_files, sheet_of
    from unet.record import sha256

    device = settle(str(config.device), config.threads)
    ckpt = Path(config.ckpt).expanduser()
    model = load(ckpt).to(device)
    lay(model, channels_last)
    tile: Any = OmegaConf.to_container(config.tile) if OmegaConf.is_list(config.tile) else config.tile
    how = PredictOptions(tile, config.overlap, config.tta, config.batch, config.precision, config.transforms)
    output = Path(config.output).expanduser()
    overlays = config.overlays or config.sheet
    order = BatchOptions(output, sha256(ckpt), how, config.probabilities, overlays, config.overwrite)
    rows = predict_files(model, files_of(str(config.input)), order, say)
    if config.sheet and (sheet := sheet_of(rows, order, model)):
        print(sheet)
    show(rows, output)
    if any(row.state == FAILED for row in rows):
        sys.exit(1)


def say(row: Any) -> None:
    took = f" in {row.seconds:.1f} s" if row.seconds else ""
    print(f"{row.path}: {row.state}{took}{f', {row.message}' if row.message else ''}", flush=True)


def show(rows: list[Any], output: Path) -> None:
    """How many files went how, and what stopped those that failed."""
    from rich.console import Console
    from rich.table import Table

    from unet.prediction.folder import DONE, FAILED, SKIPPED

    table = Table("files", "count", title=f"labels in {output}", title_justify="left")
    for state in (DONE, SKIPPED, FAILED):
        table.add_row(state, str(sum(row.state == state for row in rows)))
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row.state == FAILED:
            print(f"error: {row.message}", file=sys.stderr)


if __name__ == "__main__":
    sys.argv[1:] = verbatim(sys.argv[1:], ("ckpt", "input", "output"))
    main()
