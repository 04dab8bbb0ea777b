"""Predict a split as the evaluation does."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unet.data.module import SegmentationData
from unet.data.samples import map_in_threads
from unet.labels import IGNORE_INDEX
from unet.task.module import SegmentationTask

Argument = TypeVar("Argument")
Result = TypeVar("Result")

MAX_WORKERS = 4
"""Threads that predict at the same time: each needs the memory of a forward pass."""


@contextmanager
def eval_mode(task: SegmentationTask) -> Iterator[None]:
    """Put the task into evaluation mode, without gradients and in the trainer's precision, while the block runs."""
    training = task.training
    task.eval()
    try:
        with forward_context(task):
            yield
    finally:
        task.train(training)


@contextmanager
def forward_context(task: SegmentationTask) -> Iterator[None]:
    """Compute without gradients and in the trainer's precision in this thread while the block runs."""
    with torch.no_grad(), task.trainer.precision_plugin.forward_context():
        yield


def map_images(
    task: SegmentationTask, function: Callable[[Argument], Result], arguments: Iterable[Argument]
) -> Iterator[Result]:
    """Yield ``function(argument)``, which runs the network, of every argument in order; used in :func:`eval_mode`.

    On the CPU several threads call it, among which torch's threads are divided. Threads that divide one image wait for
    each other after every operation, and take several times as long if other processes use the cores.
    """
    threads = torch.get_num_threads() if torch.device(task.device).type == "cpu" else 1
    if threads == 1:
        yield from map(function, arguments)
        return

    def call(argument: Argument) -> Result:
        with forward_context(task):  # both settings are a thread's own
            return function(argument)

    workers = min(threads, MAX_WORKERS)
    with torch_threads(threads // workers):
        yield from map_in_threads(call, arguments, workers)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let each operation of torch use ``count`` threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict_split(
    task: SegmentationTask, data: SegmentationData, split: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (target (*S), prediction (*S)) of every item of a split in order, labels as uint8.

    The batches are those of the evaluation, limits of the trainer included, so the predictions are identical. A
    prediction is ``IGNORE_INDEX`` wherever the target is.
    """
    trainer = task.trainer
    (batches,) = trainer.num_test_batches if split == "test" else trainer.num_val_batches

    def predict(batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        labels = task.predict_labels(task.predict(batch["image"].to(task.device))).cpu()
        labels[batch["target"] == IGNORE_INDEX] = IGNORE_INDEX
        return batch["target"].numpy().astype(np.uint8), labels.numpy().astype(np.uint8)

    for targets, preds in map_images(task, predict, islice(data.eval_loader(split), int(batches))):
        yield from zip(targets, preds, strict=True)
