"""Predict images, volumes or sequences of any size with a trained network; see docs/predict.md."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.runs.cli import as_checkpoints, hydra_script, require_keys

SWITCHES = ("tta", "probabilities", "uncertainty", "overlays", "sheet", "transforms", "strict", "overwrite")
"""The keys whose values are true or false."""


@hydra_script("predict")
def main(config: DictConfig) -> None:
    """Predict every file of ``input``; exit with status 1 where one failed or is doubtful."""
    require_keys(config, ("ckpt", "input", "output"), "predict")

    from rich.console import Console
    from rich.table import Table

    from unet import load
    from unet.hardware import channels_last, select_device, to_memory_format
    from unet.inference.options import PredictOptions
    from unet.io.atomic import sha256
    from unet.prediction.predict_folder import (
        DOUBTFUL,
        FAILED,
        STATES,
        BatchOptions,
        input_root,
        list_images,
        predict_files,
        write_contact_sheet,
    )
    from unet.training.config_limits import BOOLEAN, check_values

    check_values(config, dict.fromkeys(SWITCHES, BOOLEAN))
    device = select_device(str(config.device), config.threads)
    output, ckpts = Path(str(config.output)).expanduser(), as_checkpoints(config.ckpt)
    model = load(ckpts).to(device)
    to_memory_format(model, channels_last)
    tile: Any = OmegaConf.to_container(config.tile) if OmegaConf.is_list(config.tile) else config.tile
    options = PredictOptions(
        tile,
        config.overlap,
        config.tta,
        config.batch,
        config.precision,
        config.transforms,
        config.threshold,
        config.strict,
        config.temperature,
    )
    batch = BatchOptions(
        output,
        "+".join(map(sha256, ckpts)),
        options,
        input_root(str(config.input)),
        config.labels,
        config.probabilities,
        config.uncertainty,
        config.overlays or config.sheet,
        config.overwrite,
    )
    results = predict_files(model, list_images(str(config.input)), batch, print_result)
    if config.sheet and (path := write_contact_sheet(results, batch, model)):
        print(path)
    table = Table("files", "count", title=f"labels in {output}", title_justify="left")
    for state in STATES:
        table.add_row(state, str(sum(result.state == state for result in results)))
    Console(highlight=False).print(table)
    errors = [result.message for result in results if result.state == FAILED]
    for message in errors:
        print(f"error: {message}", file=sys.stderr)
    doubtful = sum(result.state == DOUBTFUL for result in results)
    if doubtful:
        print(
            f"warning: the labels of {doubtful} of {len(results)} files are doubtful, see the lines of these files; "
            f"strict=true refuses such files",
            file=sys.stderr,
        )
    if errors or doubtful:
        sys.exit(1)


def print_result(result: Any) -> None:
    """Print the result of one file."""
    time = f" in {result.seconds:.1f} s" if result.seconds else ""
    print(f"{result.path}: {result.state}{time}{f', {result.message}' if result.message else ''}", flush=True)
