"""Measure how well the probabilities of a network match its accuracy."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.diagnostics.predictions import map_images
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

NUM_IMAGES, PIXELS_PER_IMAGE = 16, 2**13
BIN_PERCENT = 5
"""Width of a bin of confidences, in percent."""
TEMPERATURES = 0.05, 20.0
"""The smallest and the largest temperature that is fitted."""


def calibration(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """Return how the confidence of the predicted class compares with its accuracy.

    The confidence is the probability of the predicted class, of evenly spaced pixels of evenly spaced images of the
    split. Source: expected calibration error and temperature scaling, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599.

    Returns:
        ``calibration/ece``: the mean difference between confidence and accuracy, over bins of ``BIN_PERCENT`` percent;
        ``calibration/gap``: mean confidence minus accuracy, positive if the network is too certain;
        ``calibration/accuracy/<from>-<to>``: the accuracy of the pixels in a bin. If there is a validation split and
        another one is evaluated: ``calibration/temperature``, by which the logits of the validation split must be
        divided for the smallest cross-entropy, and ``calibration/ece_scaled``, the error after that.
    """
    logits, target = collect_logits(task, data, split)
    scores = calibration_error(logits, target)
    if split != "val" and "val" in data.samples:
        val_logits, val_target = collect_logits(task, data, "val")
        if bool((val_logits.argmax(1) == val_target).all()):  # the smallest temperature would be the best
            return scores
        temperature = fit_temperature(val_logits, val_target)
        scaled = calibration_error(logits / temperature, target)
        scores |= {"calibration/temperature": temperature, "calibration/ece_scaled": scaled["calibration/ece"]}
    return scores


def collect_logits(task: SegmentationTask, data: SegmentationData, split: str) -> tuple[Tensor, Tensor]:
    """Return adjusted logits (N, K) float32 and labels (N,) of pixels of a split, on the CPU.

    Raises:
        UserError: all of these pixels are ignored.
    """
    dataset = data.dataset(split, "eval")
    indices = evenly_spaced(len(data.samples[split]), NUM_IMAGES)

    def predict(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = task.adjust_logits(task.predict(batch["image"].to(task.device))).float().flatten(2)[0].T
        target = batch["target"].flatten()
        known = (target != IGNORE_INDEX).nonzero()[:, 0]
        chosen = known[evenly_spaced(len(known), PIXELS_PER_IMAGE)] if len(known) else known
        return logits[chosen.to(logits.device)].cpu(), target[chosen].long()

    parts: Iterator[tuple[Tensor, Tensor]] = map_images(task, predict, map(dataset.eval_item, indices))
    logits, target = map(torch.cat, zip(*parts, strict=True))
    if not len(target):
        raise UserError(f"all pixels of {len(indices)} images of {split} are ignored; expected some with a label")
    return logits, target


def calibration_error(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Return the scores of :func:`calibration` of logits (N, K) and labels (N,), without those of a temperature."""
    confidence, label = logits.double().softmax(1).max(1)
    confidence, correct = confidence.numpy(), (label == target).numpy()
    bins = np.minimum(confidence * 100 // BIN_PERCENT, 100 // BIN_PERCENT - 1).astype(int)
    count, confidence_sum, correct_sum = (np.bincount(bins, weights) for weights in (None, confidence, correct))
    accuracy = {
        f"calibration/accuracy/{BIN_PERCENT * n}-{BIN_PERCENT * (n + 1)}": float(correct_sum[n] / count[n])
        for n in np.flatnonzero(count)
    }
    return {
        "calibration/ece": float(np.abs(confidence_sum - correct_sum).sum() / len(target)),
        "calibration/gap": float(confidence.mean() - correct.mean()),
        **accuracy,
    }


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """Return the number by which logits (N, K) must be divided for the smallest cross-entropy with labels (N,)."""

    def cross_entropy(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), target))

    result: Any = minimize_scalar(cross_entropy, bounds=list(map(math.log, TEMPERATURES)), method="bounded")
    return math.exp(float(result.x))
