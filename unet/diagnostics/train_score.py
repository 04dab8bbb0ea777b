"""How well the network knows what it was trained on: beside the evaluated score, what it has learned by heart."""

import torch

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.task.metrics import ConfusionMatrix
from unet.task.module import SegmentationTask


def train_score(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """``train/miou``: the score on training images, whole and unaugmented, as many as ``split`` has, evenly spaced."""
    dataset = data.dataset("train", transforms="eval")
    confusion = ConfusionMatrix(len(task.classes))
    for index in evenly_spaced(len(data.samples["train"]), len(data.samples[split])):
        batch = dataset.eval_item(index)
        labels = task.predict_labels(task.predict(batch["image"].to(task.device)))
        confusion.update(labels.cpu(), batch["target"].to(torch.int64))
    return {"train/miou": confusion.scores(task.classes)["miou"]}
