"""Publish a run: its weights as safetensors, its config and metrics, and a model card made from them.

python scripts/maintain/publish.py outputs/RUN FOLDER             the weights as float32
python scripts/maintain/publish.py outputs/RUN FOLDER --bfloat16  half the size; the card has the score of these weights

``unet.load("FOLDER/checkpoints/best.safetensors")`` and ``ckpt=`` of every script take the file. ``ckpt=default`` is
the one in unet/weights/default. Absolute paths in the config become PATH.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from unet.errors import UserError
from unet.inference.checkpoint import read_checkpoint
from unet.io.atomic import atomic_folder, read_json, write_json, write_text
from unet.io.run_folder import BEST, CHECKPOINTS, CONFIG, LAST, METRICS, load_run_config
from unet.io.weights_file import SUFFIX, write_weights
from unet.report.read_sweep import read_run
from unet.training.evaluate import EvaluationResult, evaluate_checkpoint

CARD, WEIGHTS = "README.md", f"best{SUFFIX}"


def publish(run: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write a run's published form into a new folder; return the file of the weights.

    The card has the scores of the written weights, evaluated again.

    Raises:
        UserError: the run is not finished, or the folder exists.
    """
    metrics = read_json(run / METRICS)
    if not metrics:
        raise UserError(f"{run / METRICS}: no such file; expected the folder of a finished run")
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another folder")
    best = run / CHECKPOINTS / BEST
    checkpoint = read_checkpoint(best if best.is_file() else run / CHECKPOINTS / LAST)
    config: Any = OmegaConf.to_container(load_run_config(run), resolve=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        (partial / CHECKPOINTS).mkdir()
        weights = partial / CHECKPOINTS / WEIGHTS
        write_weights(weights, checkpoint["state_dict"], checkpoint["description"], dtype)
        OmegaConf.save(OmegaConf.create(config), partial / CONFIG)  # with its paths, for the evaluation
        scores = evaluate_checkpoint(weights, with_diagnostics=False)
        OmegaConf.save(OmegaConf.create(mask_absolute(config)), partial / CONFIG)
        kept = {key: value for key, value in metrics.items() if key != "model/stages"}  # long, and follows from config
        write_json(partial / METRICS, mask_absolute(kept))
        command = read_run(run).published_command
        write_text(partial / CARD, model_card(checkpoint["description"], metrics, scores, command, dtype))
    return folder / CHECKPOINTS / WEIGHTS


def mask_absolute(value: Any) -> Any:
    """Replace every text that is an absolute path by PATH."""
    if isinstance(value, dict):
        return {key: mask_absolute(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_absolute(item) for item in value]
    return "PATH" if isinstance(value, str) and Path(value).is_absolute() else value


def model_card(
    description: dict[str, Any], metrics: dict[str, Any], result: EvaluationResult, command: str, dtype: torch.dtype
) -> str:
    """Return the model card: what the network does, how it was trained, what it scores and what it cannot do."""
    split, scores = result.split, result.metrics
    rows = [f"| {name} | {scores.get(f'{split}/iou/{name}', float('nan')):.4f} |" for name in description["classes"]]
    model = description["model"]
    return "\n".join(
        [
            f"# U-Net, {metrics['data']}: {', '.join(description['classes'])}",
            "",
            f"It labels every pixel of an image of any size as one of {len(description['classes'])} classes. The image "
            f"has {model['in_channels']} channels with values as stored ({description['dtype']}).",
            "",
            f"- network: `down={model['down']}`, `up={model['up']}`, width {model['width']}, depth {model['depth']}, "
            f"{metrics['model/parameters']:,} parameters, stored as {str(dtype).removeprefix('torch.')}",
            f"- trained with: `{command}`, seed {metrics['seed']}, {metrics['steps']} steps, "
            f"commit {metrics['commit'][:10]}",
            f"- data: `{metrics['data']}`, under the licence of its source",
            f"- versions and all scores of the training: `{METRICS}`",
            "",
            f"| {split}, {scores[f'{split}/images']} images | IoU |",
            "|---|---|",
            *rows,
            f"| mean | {scores[f'{split}/miou']:.4f} |",
            "",
            "```python",
            "import unet",
            "",
            f'model = unet.load("{CHECKPOINTS}/{WEIGHTS}")',
            "labels = model.predict(image)  # (H, W, channels) as stored -> (H, W)",
            "```",
            "",
            "The scores hold for images like those of the data set. A prediction of an image with other values warns; "
            "one of another kind of scene does not.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bfloat16", action="store_true", help="store the weights in 16 bits")
    args = parser.parse_args()
    try:
        print(publish(args.run, args.folder, torch.bfloat16 if args.bfloat16 else torch.float32))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
