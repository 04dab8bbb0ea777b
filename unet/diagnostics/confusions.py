"""Save the confusion matrix of every image, for paired comparisons and intervals over images."""

from pathlib import Path

import numpy as np
import torch

from unet.data.module import SegmentationData
from unet.io.atomic import atomic_write
from unet.task.module import SegmentationTask


def save_confusions(path: Path, task: SegmentationTask, data: SegmentationData, split: str) -> None:
    """Write the confusion matrices of the last evaluation, which was that of a split, as an npz file.

    ``names`` (N,) of the images, ``groups`` (N,) of :meth:`unet.data.source.Source.group_of`, and ``counts`` (N, K, K)
    int64, row = truth, column = prediction.
    """
    items = data.samples[split].items[: task.num_evaluated]
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            names=np.array([item.name for item in items]),
            groups=np.array([data.source.group_of(item) for item in items]),
            counts=torch.cat(task.image_counts).numpy(),
        )
