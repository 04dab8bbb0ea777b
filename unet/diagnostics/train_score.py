"""Score the network on training images, to compare with the evaluated score."""

from torch import Tensor

from unet.data.module import SegmentationData
from unet.data.samples import evenly_spaced
from unet.diagnostics.predictions import map_images
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

    def predict(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return task.predict_labels(task.predict(batch["image"].to(task.device))).cpu(), batch["target"]

    indices = evenly_spaced(len(data.samples["train"]), len(data.samples[split]))
    for labels, target in map_images(task, predict, map(dataset.eval_item, indices)):
        confusion.update(labels, target)
    return {"train/miou": confusion.scores(task.classes)["miou"]}
