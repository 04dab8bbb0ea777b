"""What TensorBoard shows beside the scores: predictions over time, the confusion matrix, class shares, the graph."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.tensorboard import SummaryWriter

from unet.analysis.feature_maps import feature_maps, passage_picture
from unet.data.module import SegmentationData
from unet.diagnostics.predictions import eval_mode
from unet.labels import IGNORE_INDEX
from unet.task.metrics import ConfusionMatrix
from unet.task.module import SegmentationTask
from unet.training.callbacks.checkpoint import whole_step
from unet.visualization import confusion_picture, panel

Color = Sequence[int]
CURVES = ("trimap/", "objects/", "objects_count/", "checkerboard/peak", "information/")
"""Diagnostics, without their split's name, whose last part is a radius, a size, a stride or a level."""
THRESHOLDS = 127
"""Of a precision-recall curve, evenly from 0 to 1: as many as TensorBoard shows."""


def writer_of(trainer: L.Trainer) -> SummaryWriter | None:
    """Return the TensorBoard writer of the one process that has one."""
    if not trainer.is_global_zero:
        return None
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def add_curves(writer: SummaryWriter, scores: Mapping[str, float], step: int) -> None:
    """Write diagnostics as scalars: those of ``CURVES`` as a curve over their last number, others at ``step``.

    ``test/trimap/8`` is the point at 8 of ``test/trimap``, ``test/objects/lake/16-64`` the point at 16 of
    ``test/objects/lake``.
    """
    for name, value in scores.items():
        curve, _, point = name.rpartition("/")
        first = point.partition("-")[0]
        if name.partition("/")[2].startswith(CURVES) and first.isdecimal():
            writer.add_scalar(curve, value, int(first))
        else:
            writer.add_scalar(name, value, step)


def predict_panels(
    task: SegmentationTask, data: SegmentationData, split: str, indices: Sequence[int]
) -> list[np.ndarray]:
    """Return panels of image, truth, prediction and errors for some items of a split, as evaluation sees them."""
    dataset = data.dataset(split)
    panels = []
    with eval_mode(task):
        for index in indices:
            batch = dataset.eval_item(index)
            pred = task.predict_labels(task.predict(batch["image"].to(task.device)))[0].cpu().numpy()
            image = batch["image"][0].movedim(0, -1).numpy()
            panels.append(panel(image, batch["target"][0].numpy(), pred, data.source.colors))
    return panels


class AfterValidation(Callback):
    """Pictures for TensorBoard, drawn after every validation.

    Args:
        count: how many of what a kind of picture shows; 0: no picture.
    """

    def __init__(self, count: int):
        self.count = count

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = writer_of(trainer)
        if writer is None or trainer.sanity_checking or self.count == 0:
            return
        for tag, picture in self.pictures(pl_module, trainer.datamodule):  # type: ignore[attr-defined]
            writer.add_image(tag, picture, trainer.global_step, dataformats="HWC")

    def pictures(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        """(tag, picture (H, W, 3) uint8) of each."""
        raise NotImplementedError


class Pictures(AfterValidation):
    """Panels of the same ``count`` validation images, those whose labels are the most mixed; the confusion matrix."""

    def pictures(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        panels = predict_panels(task, data, "val", data.samples["val"].highest_entropy(self.count))
        for place, picture in enumerate(panels):
            yield f"val/{place}", picture
        yield "val/confusion", confusion_picture(task.confusion.counts.cpu().numpy(), task.classes)


class FeatureMaps(AfterValidation):
    """What each operator is given and what it makes of it, on one validation image: ``count`` channels of each."""

    def pictures(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        (index,) = data.samples["val"].highest_entropy(1)
        image = data.example("val", index).to(task.device)
        with eval_mode(task):
            found = feature_maps(task.net, task.normalize(image))
        for passage in found:
            yield f"features/{passage.title.replace(' ', '_')}", passage_picture(passage, self.count)


class Charts(Callback):
    """The custom scalars tab: what belongs in one chart, with a line for every run that is shown."""

    def on_train_start(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        names = [re.escape(name) for name in pl_module.classes]
        writer.add_custom_scalars(
            {
                "scores": {"mIoU": ["Multiline", ["val/miou$"]], "loss": ["Multiline", ["(train|val)/loss$"]]},
                "IoU": {name: ["Multiline", [f"val/iou/{name}$"]] for name in names},
                "class shares": {name: ["Multiline", [f"share/(true|predicted)/{name}$"]] for name in names},
            }
        )


class ClassShares(Callback):
    """True and predicted share of every class in the training batches, from step 0: all-background shows at once."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: SegmentationTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        writer, step = writer_of(trainer), trainer.global_step - 1
        logged = step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if writer is None or not logged or not whole_step(trainer, batch_idx):
            return
        confusion = ConfusionMatrix(len(pl_module.classes), outputs["logits"].device)
        confusion.update(pl_module.predict_labels(outputs["logits"]), batch["target"])
        for kind, shares in zip(("true", "predicted"), confusion.shares(), strict=True):
            for name, share in zip(pl_module.classes, shares, strict=True):
                writer.add_scalar(f"share/{kind}/{name}", share, step)


class PrecisionRecall(Callback):
    """A precision-recall curve of every class against the others, from the final evaluation on whichever split."""

    def setup(self, trainer: L.Trainer, pl_module: SegmentationTask, stage: str) -> None:
        self.counts = torch.zeros(2, len(pl_module.classes), THRESHOLDS, dtype=torch.int64)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: SegmentationTask,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        probs = pl_module.adjust_logits(outputs["logits"].float()).softmax(1).movedim(1, -1)
        known = batch["target"] != IGNORE_INDEX
        places = (probs[known] * (THRESHOLDS - 1)).long()  # the highest threshold each probability reaches
        target = batch["target"][known]
        for index in range(len(pl_module.classes)):
            for truth in (0, 1):
                chosen = places[(target == index) == bool(truth), index]
                self.counts[truth, index] += torch.bincount(chosen, minlength=THRESHOLDS).cpu()

    def on_test_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        negatives, positives = self.counts.flip(-1).cumsum(-1).flip(-1)  # at or above every threshold
        for index, name in enumerate(pl_module.classes):
            hits, alarms = positives[index].double(), negatives[index].double()
            if hits[0] == 0:
                continue  # no such class in the truth
            precision = hits / (hits + alarms).clamp(min=1)
            writer.add_pr_curve_raw(
                f"precision_recall/{name}",
                *(hits, alarms, alarms[0] - alarms, hits[0] - hits, precision, hits / hits[0]),
                global_step=trainer.global_step,
                num_thresholds=THRESHOLDS,
            )

    def on_validation_batch_end(self, trainer: L.Trainer, *arguments: Any, **named: Any) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # there is no test split; in training, validation is not the end
            self.on_test_batch_end(trainer, *arguments, **named)

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_test_end(trainer, pl_module)


class Graph(Callback):
    """The network's graph, once."""

    def on_train_start(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        data: SegmentationData = trainer.datamodule  # type: ignore[attr-defined]
        image = data.example("val").to(pl_module.device)
        training = pl_module.training
        pl_module.eval()
        with warnings.catch_warnings():  # tracing warns of what it cannot follow; a picture needs no more
            warnings.simplefilter("ignore")
            writer.add_graph(pl_module, image)
        pl_module.train(training)
