"""Segmentation metrics from one confusion matrix over a whole split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unet.labels import IGNORE_INDEX


def count_by_image(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the confusion counts (B, K, K) of every image of a batch (B, *S), see :class:`ConfusionMatrix`."""
    ignored = num_classes**2  # these pixels are counted after all pairs of an image
    pairs = (target * num_classes + pred).where(target != IGNORE_INDEX, ignored).flatten(1)
    pairs += torch.arange(len(pairs), device=pairs.device)[:, None] * (ignored + 1)
    counts = pairs.new_zeros(len(pairs) * (ignored + 1))
    # A mask or bincount would synchronise with the GPU.
    counts.index_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())
    return counts.view(len(pairs), ignored + 1)[:, :ignored].unflatten(1, (num_classes, num_classes))


class ConfusionMatrix:
    """Counts of (true class, predicted class), in integers.

    Attributes:
        counts: (K, K) int64; row = true class, column = predicted class.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add predicted and true labels of the same shape; targets of ``IGNORE_INDEX`` are left out."""
        self.counts += count_by_image(pred[None], target[None], self.num_classes)[0]

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """Return ``miou``, ``dice``, ``class_accuracy`` (means over classes), ``accuracy``, and IoU and Dice per class.

        A class absent from targets and predictions has no IoU and no Dice: it is left out of the means and the keys.
        ``class_accuracy`` is the mean over the classes in the targets.
        """
        counts = self.counts.cpu().double()
        correct, truth, pred = counts.diag(), counts.sum(1), counts.sum(0)
        union = truth + pred - correct
        present = union > 0
        iou, dice = correct / union, 2 * correct / (truth + pred)
        recall = correct[truth > 0] / truth[truth > 0]
        scores = {
            "miou": iou[present].mean().item(),
            "dice": dice[present].mean().item(),
            "accuracy": (correct.sum() / counts.sum()).item(),
            "class_accuracy": recall.mean().item(),
        }
        for index, name in enumerate(classes):
            if present[index]:
                scores[f"iou/{name}"] = iou[index].item()
                scores[f"dice/{name}"] = dice[index].item()
        return scores

    def absent_classes(self, classes: Sequence[str]) -> list[str]:
        """Return the classes that occur neither in targets nor in predictions."""
        totals = (self.counts.sum(0) + self.counts.sum(1)).tolist()
        return [name for name, count in zip(classes, totals, strict=True) if count == 0]

    def class_frequencies(self) -> tuple[list[float], list[float]]:
        """Return the (true, predicted) frequency of every class."""
        total = self.counts.sum().clamp(min=1)
        return (self.counts.sum(1) / total).tolist(), (self.counts.sum(0) / total).tolist()
