"""Class weights by name, from the label counts of the training images."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from unet.errors import UserError


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
