"""Score a per-pixel colour histogram classifier, which has no context, as a baseline.

Every colour, rounded to 32 levels per channel (a single channel to 256), is predicted as its most frequent class in the
training split. The scores are those of a training on the same evaluation split, in any number of dimensions.
"""

from typing import Any

import numpy as np
from omegaconf import DictConfig

from unet.runs.cli import hydra_script


@hydra_script("baseline")
def main(config: DictConfig) -> None:
    """Print the scores of the classifier."""
    result = score(config)
    print(f"{result['from']} alone, data={config.data.name}, {result['split']} split")
    for name, value in result["scores"].items():
        print(f"  {name:20} {value:.4f}")


def score(config: DictConfig) -> dict[str, Any]:
    """Return the scores of the classifier on the evaluation split of a config's data."""
    import torch

    from unet.data_check.advice import scan_data
    from unet.task.metrics import ConfusionMatrix
    from unet.training.build import build_data
    from unet.training.config_limits import validate_config

    validate_config(config)
    data = build_data(config)
    scan_data(data, config)
    train, evaluation = data.samples["train"], data.samples[data.eval_split]
    span = value_span(train)
    votes = colour_votes(train, data.source.num_classes, span)
    confusion = ConfusionMatrix(data.source.num_classes)
    for image, target in (evaluation[index] for index in range(len(evaluation))):
        pred = votes.argmax(1)[colour_codes(image, span)]
        confusion.update(torch.from_numpy(pred), torch.from_numpy(target.ravel().astype("int64")))
    values = {name: float(value) for name, value in confusion.scores(data.source.classes).items()}
    return {"from": "intensity" if train.channels == 1 else "colour", "split": data.eval_split, "scores": values}


def levels(channels: int) -> int:
    """Return the levels per channel: 32 for 2^15 colours, or 256 intensities."""
    return 256 if channels == 1 else 32


def value_span(samples: Any) -> tuple[float, float]:
    """Return the range of values that is divided into levels: 0 to 256 of 8-bit images, else minimum to maximum."""
    if samples[0][0].dtype == np.uint8:
        return 0, 256
    ranges = [(image.min(), image.max()) for image, _ in (samples[index] for index in range(len(samples)))]
    return float(np.min(ranges)), float(np.nextafter(np.float32(np.max(ranges)), np.float32(np.inf)))


def colour_codes(image: np.ndarray, span: tuple[float, float] = (0, 256)) -> np.ndarray:
    """Return the colour code of every pixel of an image (*S, C), from its first three channels, clipped to ``span``."""
    values = image.reshape(-1, image.shape[-1])[:, :3].astype(np.float64)
    number = levels(image.shape[-1])
    steps = ((values - span[0]) * number / (span[1] - span[0])).astype(np.int64).clip(0, number - 1)
    return steps @ number ** np.arange(steps.shape[1])


def colour_votes(samples: Any, num_classes: int, span: tuple[float, float] = (0, 256)) -> np.ndarray:
    """Return the counts (colours, classes) of every colour in every class."""
    votes = np.zeros((levels(samples.channels) ** min(3, samples.channels), num_classes), np.int64)
    for image, target in (samples[index] for index in range(len(samples))):
        known = target.ravel() < num_classes
        np.add.at(votes, (colour_codes(image, span)[known], target.ravel()[known]), 1)
    return votes
