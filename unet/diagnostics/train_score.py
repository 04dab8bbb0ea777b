"""Score the network on training images, to compare with the evaluated score."""

import torch

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.task.metrics import ConfusionMatrix
from unet.task.module import SegmentationTask


def train_score(task: SegmentationTask, data: SegmentationData, split: str) -> dict[str, float]:
    """Return ``train/miou`` of full training images without augmentation, evenly spaced, as many as ``split`` has.

    Without a training split, in an evaluation of a whole folder, there is no score.
    """
    if "train" not in data.samples:
        return {}
    dataset = data.dataset("train", transforms="eval")
    confusion = ConfusionMatrix(len(task.classes))
    for index in evenly_spaced(len(data.samples["train"]), len(data.samples[split])):
        batch = dataset.eval_item(index)
        labels = task.predict_labels(task.predict(batch["image"].to(task.device)))
        confusion.update(labels.cpu(), batch["target"].to(torch.int64))
    return {"train/miou": confusion.scores(task.classes)["miou"]}
