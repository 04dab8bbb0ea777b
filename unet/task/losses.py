"""Losses by name, of logits (B, K, *S) and target (B, *S) without ``IGNORE_INDEX``, computed in float32."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet.errors import UserError
from unet.labels import IGNORE_INDEX


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the cross-entropy, averaged over labelled pixels by their class weights; 0 without labelled pixels."""
    total = F.cross_entropy(logits, target, weight, ignore_index=IGNORE_INDEX, reduction="sum")
    known = target != IGNORE_INDEX
    mass = known.sum() if weight is None else weight[target.where(known, 0)].where(known, 0).sum()
    return total / mass.clamp(min=torch.finfo(total.dtype).tiny)


def dice(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return one minus the soft Dice of each class over the batch, averaged over the classes in the batch.

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797. ``weight``: weights of the classes in the mean.
    """
    known = target != IGNORE_INDEX
    label = target.where(known, 0)
    probs = logits.softmax(1) * known.unsqueeze(1)
    hits = probs.gather(1, label.unsqueeze(1))  # a one-hot target would cost several times the cross-entropy
    overlap = probs.new_zeros(logits.shape[1]).index_add(0, label.flatten(), hits.flatten())
    # A mask or bincount would synchronise with the GPU.
    count = label.new_zeros(logits.shape[1]).index_add(0, label.flatten(), known.flatten().long())
    size = probs.sum((0, *range(2, logits.ndim))) + count
    present = (count > 0).to(size.dtype)
    class_weight = present if weight is None else present * weight
    score = (2 * overlap + 1) / (size + 1)  # the 1 bounds the gradient of a class of few pixels
    return (class_weight * (1 - score)).sum() / class_weight.sum().clamp(min=torch.finfo(size.dtype).tiny)


def cross_entropy_dice(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted cross-entropy plus the unweighted Dice loss, as in nnU-Net (arXiv:1904.08128)."""
    return cross_entropy(logits, target, weight) + dice(logits, target, None)


def focal(logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float = 2.0) -> Tensor:
    """Return the cross-entropy scaled by ``(1 - p)^gamma``: easy pixels count less (Lin 2017, arXiv:1708.02002)."""
    known = target != IGNORE_INDEX
    label = target.where(known, 0)
    log_p = logits.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
    mass = known.to(log_p.dtype) if weight is None else weight[label] * known
    return -(mass * (1 - log_p.exp()) ** gamma * log_p).sum() / mass.sum().clamp(min=torch.finfo(log_p.dtype).tiny)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "cross_entropy_dice": cross_entropy_dice,
    "focal": focal,
}


def inverse_frequency(counts: Sequence[int], power: float) -> list[float]:
    """Return ``(median frequency / frequency) ** power`` per class (Eigen 2015, arXiv:1411.4734); 1 if absent."""
    frequency = torch.tensor(counts, dtype=torch.float64)
    present = frequency > 0
    median = frequency[present].quantile(0.5) if present.any() else torch.tensor(1.0)
    return torch.where(present, (median / frequency.clamp(min=1)) ** power, 1.0).tolist()


CLASS_WEIGHTS: Mapping[str, Callable[[Sequence[int]], list[float] | None]] = {
    "none": lambda counts: None,
    "median_frequency": lambda counts: inverse_frequency(counts, 1.0),
    "sqrt_median_frequency": lambda counts: inverse_frequency(counts, 0.5),
}


def class_weights(choice: str | Sequence[float], counts: Sequence[int]) -> list[float] | None:
    """Return one weight per class or None: from the label counts if ``choice`` is a name, else ``choice`` itself."""
    if isinstance(choice, str):
        return CLASS_WEIGHTS[choice](counts)
    if not isinstance(choice, Sequence) or len(choice) != len(counts) or not are_weights(choice):
        raise UserError(
            f"loss.class_weights: expected {', '.join(CLASS_WEIGHTS)} or {len(counts)} numbers of at least 0, one per "
            f"class, not all 0, found {choice!r}"
        )
    return [float(weight) for weight in choice]


def are_weights(values: Sequence[Any]) -> bool:
    """Return whether all values are finite numbers of at least 0, and one is above 0."""
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value) and value >= 0]
    return len(numbers) == len(values) and any(numbers)


def log_weights(weights: Sequence[float] | None) -> list[float] | None:
    """Return the logarithm of every class weight; 0 for a weight of 0, whose class is not trained."""
    return None if weights is None else [math.log(weight) if weight > 0 else 0.0 for weight in weights]


def make_loss(name: str, weights: Sequence[float] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss as a function of (logits, target)."""
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        device_weight = None if weight is None else weight.to(logits.device, non_blocking=True)
        return LOSSES[name](logits.float(), target, device_weight)

    return loss
