"""TensorBoard callbacks: predictions, feature maps, the confusion matrix, class frequencies, the graph."""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from unet.analysis.feature_maps import draw_operator_io, feature_maps
from unet.data.module import SegmentationData
from unet.diagnostics.predictions import eval_mode
from unet.labels import IGNORE_INDEX
from unet.task.metrics import ConfusionMatrix
from unet.task.module import SegmentationTask
from unet.training.callbacks.checkpoint import is_optimizer_step
from unet.training.loggers import IMAGE_LOGGERS, log_image
from unet.visualization import draw_confusion_matrix, panel

CURVES = ("trimap/", "objects/", "objects_count/", "checkerboard/peak", "information/", "calibration/accuracy/")
"""Diagnostics, without the split's name, whose last part is a radius, a size, a stride, a level or a percentage."""
THRESHOLDS = 127
"""Number of thresholds of a precision-recall curve, evenly spaced: the largest that TensorBoard draws."""


def get_writer(trainer: L.Trainer) -> SummaryWriter | None:
    """Return the TensorBoard writer, which only the first process has."""
    if not trainer.is_global_zero:
        return None
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def add_curves(writer: SummaryWriter, scores: Mapping[str, float], step: int) -> None:
    """Log diagnostics as scalars: those of ``CURVES`` as curves over the number in their name, others at ``step``.

    ``test/trimap/8`` is the point of ``test/trimap`` at step 8, ``test/objects/lake/16-64`` the one of
    ``test/objects/lake`` at step 16.
    """
    for name, value in scores.items():
        curve, _, point = name.rpartition("/")
        first = point.partition("-")[0]
        if name.partition("/")[2].startswith(CURVES) and first.isdecimal():
            writer.add_scalar(curve, value, int(first))
        else:
            writer.add_scalar(name, value, step)


class ImageLogger(Callback):
    """A callback that logs images of ``count`` panels or channels after every validation; 0: none."""

    def __init__(self, count: int):
        self.count = count

    def logs_images(self, trainer: L.Trainer) -> bool:
        """Return whether images of the current validation are logged."""
        takes_images = any(isinstance(logger, IMAGE_LOGGERS) for logger in trainer.loggers)
        return takes_images and trainer.is_global_zero and not trainer.sanity_checking and self.count > 0

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        if not self.logs_images(trainer):
            return
        for tag, image in self.images(pl_module, trainer.datamodule):  # type: ignore[attr-defined]
            log_image(trainer.loggers, tag, image, trainer.global_step)

    def images(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the tag and the image, (H, W, 3) uint8, of everything to log."""
        raise NotImplementedError


class PredictionImages(ImageLogger):
    """A callback that draws ``count`` images of every evaluation, and logs those of a validation.

    They are the images with the highest entropy of labels, so they are always the same. The confusion matrix is logged
    as well.

    Attributes:
        panels: image, truth, prediction and errors of these images of the last evaluation, (H, W, 3) uint8; None until
            the image is evaluated.
    """

    def __init__(self, count: int):
        super().__init__(count)
        self.panels: dict[int, np.ndarray | None] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        self.panels = {}
        is_final = trainer.is_global_zero and trainer.state.fn != TrainerFn.FITTING
        if not is_final and not self.logs_images(trainer):
            return
        data: SegmentationData = trainer.datamodule  # type: ignore[attr-defined]
        split, batches = ("test", trainer.num_test_batches) if trainer.testing else ("val", trainer.num_val_batches)
        evaluated = int(sum(batches)) * data.eval_batch_size
        self.panels = dict.fromkeys(data.samples[split].highest_entropy(self.count, evaluated))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: SegmentationTask,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        data: SegmentationData = trainer.datamodule  # type: ignore[attr-defined]
        for position, image in enumerate(batch["image"]):
            index = batch_idx * data.eval_batch_size + position
            if index not in self.panels:
                continue
            pixels = image.movedim(0, -1).cpu().numpy()
            labels = pl_module.predict_labels(outputs["logits"][position : position + 1])[0].cpu().numpy()
            labels[np.isnan(pixels).all(-1)] = IGNORE_INDEX  # as a prediction writes where there is no data
            self.panels[index] = panel(pixels, batch["target"][position].cpu().numpy(), labels, data.source.colors)

    on_test_epoch_start, on_test_batch_end = on_validation_epoch_start, on_validation_batch_end  # type: ignore

    def images(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        for number, image in enumerate(self.panels.values()):
            if image is not None:
                yield f"val/{number}", image
        yield "val/confusion", draw_confusion_matrix(task.confusion.counts.cpu().numpy(), task.classes)


class FeatureMaps(ImageLogger):
    """A callback that logs ``count`` channels of the input and output of every operator for one validation image."""

    def images(self, task: SegmentationTask, data: SegmentationData) -> Iterator[tuple[str, np.ndarray]]:
        (index,) = data.samples["val"].highest_entropy(1)
        image = data.example("val", index).to(task.device)
        with eval_mode(task):
            records = feature_maps(task.net, task.normalize(image))
        for record in records:
            yield f"features/{record.title.replace(' ', '_')}", draw_operator_io(record, self.count)


class Charts(Callback):
    """A callback that defines the charts of the custom scalars tab."""

    def on_train_start(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = get_writer(trainer)
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
    """A callback that logs the true and predicted frequency of every class in the training batches, from step 0."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: SegmentationTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        writer, step = get_writer(trainer), trainer.global_step - 1
        is_due = step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if writer is None or not is_due or not is_optimizer_step(trainer, batch_idx):
            return
        confusion = ConfusionMatrix(len(pl_module.classes), outputs["logits"].device)
        confusion.update(pl_module.predict_labels(outputs["logits"]), batch["target"])
        for kind, frequencies in zip(("true", "predicted"), confusion.class_frequencies(), strict=True):
            for name, frequency in zip(pl_module.classes, frequencies, strict=True):
                writer.add_scalar(f"share/{kind}/{name}", frequency, step)


class PrecisionRecall(Callback):
    """A callback that logs the precision-recall curve of every class in the final evaluation."""

    def setup(self, trainer: L.Trainer, pl_module: SegmentationTask, stage: str) -> None:
        self.counts = torch.zeros(2, len(pl_module.classes), THRESHOLDS, dtype=torch.int64)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: SegmentationTask, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        probs = pl_module.adjust_logits(outputs["logits"].float()).softmax(1).movedim(1, -1)
        known = batch["target"] != IGNORE_INDEX
        bins = (probs[known] * (THRESHOLDS - 1)).long()  # the highest threshold below each probability
        target = batch["target"][known]
        for index in range(len(pl_module.classes)):
            for truth in (0, 1):
                selected = bins[(target == index) == bool(truth), index]
                self.counts[truth, index] += torch.bincount(selected, minlength=THRESHOLDS).cpu()

    def on_test_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = get_writer(trainer)
        if writer is None:
            return
        negatives, positives = self.counts.flip(-1).cumsum(-1).flip(-1)  # at or above every threshold
        for index, name in enumerate(pl_module.classes):
            tp, fp = positives[index].double(), negatives[index].double()
            if tp[0] == 0:
                continue  # the class does not occur
            precision = tp / (tp + fp).clamp(min=1)
            writer.add_pr_curve_raw(
                f"precision_recall/{name}",
                *(tp, fp, fp[0] - fp, tp[0] - tp, precision, tp / tp[0]),
                global_step=trainer.global_step,
                num_thresholds=THRESHOLDS,
            )

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # the final evaluation, as there is no test split
            self.on_test_batch_end(trainer, *args, **kwargs)

    def on_validation_end(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_test_end(trainer, pl_module)


class Graph(Callback):
    """A callback that logs the graph of the network."""

    def on_train_start(self, trainer: L.Trainer, pl_module: SegmentationTask) -> None:
        writer = get_writer(trainer)
        if writer is None:
            return
        data: SegmentationData = trainer.datamodule  # type: ignore[attr-defined]
        image = data.example("train").to(pl_module.device)  # small, and the sizes are those of the summary
        training = pl_module.training
        pl_module.eval()
        with warnings.catch_warnings():  # tracing warns about data-dependent code
            warnings.simplefilter("ignore")
            # Traced here because add_graph would trace twice, to check the result.
            writer.add_graph(torch.jit.trace(pl_module, image, check_trace=False), image)
        pl_module.train(training)
