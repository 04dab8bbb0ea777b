"""What a label may be, said once for data, losses, metrics and pictures."""

import numpy as np

IGNORE_INDEX = 255
"""The label left out of loss and metrics, everywhere."""


def label_entropy(counts: np.ndarray) -> np.ndarray:
    """How mixed labels are: the entropy of the classes' shares, in nats, for counts (N, K) -> (N,)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(1)
