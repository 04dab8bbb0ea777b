"""A network as evaluation uses it, and what it predicts for a whole split."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unet.data.module import SegmentationData
from unet.labels import IGNORE_INDEX
from unet.task import SegmentationTask

Array = np.ndarray


@contextmanager
def evaluating(task: SegmentationTask) -> Iterator[None]:
    """While it lasts the task is on the trainer's device (which a finished trainer took it from), in its precision,
    in evaluation mode and without gradients; afterwards it is as it was."""
    training, device = task.training, task.device
    task.to(task.trainer.strategy.root_device)
    task.eval()
    try:
        with torch.no_grad(), task.trainer.precision_plugin.forward_context():
            yield
    finally:
        task.train(training)
        task.to(device)


def predictions(task: SegmentationTask, data: SegmentationData, split: str) -> Iterator[tuple[str, Array, Array]]:
    """(name, target (*S), prediction (*S)) of every item of a split, labels as uint8, in order.

    The batches are those of the evaluation, so the predictions are too, to the last tie. A prediction is
    ``IGNORE_INDEX`` wherever the target is.
    """
    names = iter([item.name for item in data.samples[split].items])
    for batch in data.eval_loader(split):
        labels = task.decide(task.predict(batch["image"].to(task.device))).cpu()
        labels[batch["target"] == IGNORE_INDEX] = IGNORE_INDEX
        for target, pred in zip(batch["target"], labels, strict=True):
            yield next(names), target.numpy().astype(np.uint8), pred.numpy().astype(np.uint8)
