"""Labels: the one to ignore, and the entropy of label counts."""

import numpy as np

IGNORE_INDEX = 255
"""The label of pixels that losses and metrics leave out."""


def label_entropy(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of the class frequencies in nats: counts (N, K) -> (N,)."""
    frequency = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return -(frequency * np.log(np.where(frequency > 0, frequency, 1))).sum(1)
