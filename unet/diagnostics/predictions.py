"""Predict a split as the evaluation does."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch

from unet.data.module import SegmentationData
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask


@contextmanager
def eval_mode(task: SegmentationTask) -> Iterator[None]:
    """Put the task into evaluation mode, without gradients and in the trainer's precision, while the block runs."""
    training = task.training
    task.eval()
    try:
        with torch.no_grad(), task.trainer.precision_plugin.forward_context():
            yield
    finally:
        task.train(training)


def predict_split(
    task: SegmentationTask, data: SegmentationData, split: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (name, target (*S), prediction (*S)) of every item of a split in order, labels as uint8.

    The batches are those of the evaluation, limits of the trainer included, so the predictions are identical. A
    prediction is ``IGNORE_INDEX`` wherever the target is.
    """
    trainer = task.trainer
    (batches,) = trainer.num_test_batches if split == "test" else trainer.num_val_batches
    names = iter([item.name for item in data.samples[split].items])
    for batch in islice(data.eval_loader(split), int(batches)):
        labels = task.predict_labels(task.predict(batch["image"].to(task.device))).cpu()
        labels[batch["target"] == IGNORE_INDEX] = IGNORE_INDEX
        for target, pred in zip(batch["target"], labels, strict=True):
            yield next(names), target.numpy().astype(np.uint8), pred.numpy().astype(np.uint8)
