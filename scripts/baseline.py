"""How far colour alone goes: a histogram classifier without any context, as the floor a network has to beat.

    python scripts/baseline.py data=blue_marble

Every colour of the training split, rounded to 32 levels a channel, votes for the class it most often has there;
the scores are those of ``train.py``, on the same evaluation split.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

import hydra
import numpy as np
from omegaconf import DictConfig

from unet.command import command

LEVELS = 32


@command("train")
@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(config: DictConfig) -> None:
    import torch

    from unet.metrics import ConfusionMatrix
    from unet.training import build_data

    data = build_data(config)
    data.scan()
    votes = colour_votes(data.samples["train"], data.source.num_classes)
    confusion = ConfusionMatrix(data.source.num_classes)
    for index in range(len(data.samples[data.eval_split])):
        image, target = data.samples[data.eval_split][index]
        pred = votes.argmax(1)[colour_codes(image)]
        confusion.update(torch.from_numpy(pred), torch.from_numpy(target.ravel().astype("int64")))
    print(f"colour alone, data={config.data.name}, {data.eval_split} split")
    for name, value in confusion.scores(data.source.classes).items():
        print(f"  {name:20} {value:.4f}")


def colour_codes(image: np.ndarray) -> np.ndarray:
    """image (*S, C) of 8-bit values -> (pixels,) one code a colour, at most three channels used."""
    levels = image.reshape(-1, image.shape[-1])[:, :3].astype(np.int64) * LEVELS // 256
    return levels @ LEVELS ** np.arange(levels.shape[1])


def colour_votes(samples: Any, num_classes: int) -> np.ndarray:
    """(colours, classes) how often each colour is each class."""
    votes = np.zeros((LEVELS ** min(3, samples.channels), num_classes), np.int64)
    for index in range(len(samples)):
        image, target = samples[index]
        known = target.ravel() < num_classes
        np.add.at(votes, (colour_codes(image)[known], target.ravel()[known]), 1)
    return votes


if __name__ == "__main__":
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]  # nothing is left behind
    main()
