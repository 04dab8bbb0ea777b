"""Save the confusion matrix of every image, for paired comparisons and intervals over images."""

from pathlib import Path

import numpy as np
import torch

from unet.io.atomic import atomic_write
from unet.task.metrics import ConfusionMatrix


class ImageConfusions:
    """The confusion matrices of single images."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.names: list[str] = []
        self.counts: list[np.ndarray] = []

    def update(self, name: str, target: np.ndarray, pred: np.ndarray) -> None:
        """Count one image's labels (*S); pixels whose target is ``IGNORE_INDEX`` do not count."""
        confusion = ConfusionMatrix(self.num_classes)
        confusion.update(*(torch.from_numpy(labels.astype(np.int64)) for labels in (pred, target)))
        self.names.append(name)
        self.counts.append(confusion.counts.numpy())

    def save(self, path: Path) -> None:
        """Write ``names`` (N,) and ``counts`` (N, K, K) int64, row = truth, column = prediction, as an npz file."""
        with atomic_write(path) as file:
            np.savez_compressed(file, names=np.array(self.names), counts=np.stack(self.counts))
