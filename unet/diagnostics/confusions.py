"""The confusion matrix of every image: what paired comparisons and intervals over images are made from."""

from pathlib import Path

import numpy as np
import torch

from unet.io.atomic import atomic_write
from unet.task.metrics import ConfusionMatrix

Array = np.ndarray


class Confusions:
    """Counts of (true class, predicted class), image by image."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.names: list[str] = []
        self.counts: list[Array] = []

    def add(self, name: str, target: Array, pred: Array) -> None:
        """Labels (*S); samples whose target is ``IGNORE_INDEX`` are left out."""
        confusion = ConfusionMatrix(self.num_classes)
        confusion.update(*(torch.from_numpy(labels.astype(np.int64)) for labels in (pred, target)))
        self.names.append(name)
        self.counts.append(confusion.counts.numpy())

    def save(self, path: Path) -> None:
        """``names`` (N,) and ``counts`` (N, K, K) int64, row = truth, column = prediction, as an npz file."""
        with atomic_write(path) as file:
            np.savez_compressed(file, names=np.array(self.names), counts=np.stack(self.counts))
