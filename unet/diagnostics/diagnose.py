"""All diagnostics of a split, each an entry of one of two tables."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from unet.data.module import SegmentationData
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.boundary import BoundaryF1, BoundaryIoU, Trimap
from unet.diagnostics.checkerboard import imbalance, peaks
from unet.diagnostics.confusions import Confusions
from unet.diagnostics.information import information
from unet.diagnostics.objects import ObjectRecall
from unet.diagnostics.predictions import evaluating, predictions
from unet.diagnostics.shift import shift
from unet.diagnostics.skeleton import SkeletonRecall
from unet.diagnostics.train_score import train_score
from unet.io.run_folder import CONFUSIONS
from unet.task.module import SegmentationTask

Array = np.ndarray
Scores = dict[str, float]


class LabelMetric(Protocol):
    """Gathers what it needs of a split, image by image."""

    def add(self, target: Array, pred: Array) -> None:
        """Labels (*S) uint8, both ``IGNORE_INDEX`` where the target is."""
        ...

    def scores(self, classes: Sequence[str]) -> Scores:
        """Flat, without the split's name; nothing for what does not occur."""
        ...


LABEL_METRICS: dict[str, Callable[[int], LabelMetric]] = {
    "boundary/iou": BoundaryIoU,
    "boundary/bf": BoundaryF1,
    "trimap": Trimap,
    "objects": ObjectRecall,
    "thin": SkeletonRecall,
}
"""What can be told from labels alone: a factory of the number of classes."""

MODEL_PROBES: dict[str, Callable[[SegmentationTask, SegmentationData, str], Scores]] = {
    "shift": shift,
    "checkerboard/imbalance": imbalance,
    "checkerboard/peak": peaks,
    "information": information,
}
"""What the network itself must be asked; ``UserError`` where it has no answer."""


def diagnose(task: SegmentationTask, data: SegmentationData, split: str, out: Path) -> Scores:
    """Every diagnostic of a split, called ``<split>/...``, and ``train/miou``; ``confusions.npz`` in folder ``out``.

    One that cannot be computed is left out with a line that says why.
    """
    scores: Scores = {}
    fitted: Scores = {}
    with skip_on_error("all"), evaluating(task):
        for name, diagnostic in {"predictions": partial(tallied, out=out), **MODEL_PROBES}.items():
            with skip_on_error(name):
                scores |= diagnostic(task, data, split)
        with skip_on_error("train/miou"):
            fitted = train_score(task, data, split)
    return {f"{split}/{name}": value for name, value in scores.items()} | fitted


def tallied(task: SegmentationTask, data: SegmentationData, split: str, out: Path) -> Scores:
    """The scores of all ``TALLIES``, and the confusion matrices, from one prediction of every image."""
    tallies = {name: tally(len(task.classes)) for name, tally in LABEL_METRICS.items()}
    confusions = Confusions(len(task.classes))
    for image, target, pred in predictions(task, data, split):
        confusions.add(image, target, pred)
        for name in list(tallies):
            tally = tallies.pop(name)  # one that fails does not come back
            with skip_on_error(name):
                tally.add(target, pred)
                tallies[name] = tally
    with skip_on_error(CONFUSIONS):
        confusions.save(out / CONFUSIONS)
    return {key: value for tally in tallies.values() for key, value in tally.scores(task.classes).items()}
