"""Resample the evaluated images through their confusion counts."""

import math
from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np

import unet.report.statistics as statistics
from unet.errors import UserError
from unet.io.config_keys import SPLIT_SEED
from unet.report.metrics import FROM_COUNTS
from unet.report.read_sweep import Replicate, Run

Array = np.ndarray

CONFUSIONS = "confusions.npz"
MIN_IMAGES = 10
"""With fewer, only seeds are resampled."""


def read_confusions(run: Run) -> tuple[list[str], np.ndarray] | None:
    """Return names and counts (N, K, K) of the evaluated images, row truth, column prediction; None without a file.

    Raises:
        UserError: the file has other contents.
    """
    path = run.folder / CONFUSIONS
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            names, counts = [str(name) for name in arrays["names"]], arrays["counts"]
        if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or len(names) != len(counts):
            raise ValueError(f"{len(names)} names and counts of shape {counts.shape}")
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected N names and counts (N, K, K); remove the file"
        ) from None
    return names, counts


def resample_images(
    compared: Sequence[dict[Replicate, Run]], seeds: Sequence[Replicate], values: Array, metric: str
) -> tuple[Array | None, int, list[str]]:
    """Return the metric (A, S, R) under draws of the evaluated images, their number, and warnings.

    None if runs have no counts or too few images, or the metric does not follow from counts. A run's replicates are
    shifted to its own value: only their variance is used.
    """
    if metric not in FROM_COUNTS:
        return None, 0, []
    counts: dict[tuple[int, int], Array] = {}
    names: list[str] = []
    splits: set[int | None] = set()
    for arm, runs in enumerate(compared):
        for seed, run in runs.items():
            try:
                confusions = read_confusions(run)
            except UserError as error:
                return None, 0, [f"{error}; only seeds are resampled."]
            if confusions is None:
                warning = f"{run.name} has no confusions.npz: only seeds are resampled, not images."
                return None, 0, [warning] if counts else []
            splits.add(run.setting(SPLIT_SEED))
            if names and confusions[0] != names and (run.fold is not None or len(splits) > 1):
                return None, 0, []  # every fold or split is evaluated on its own images
            if names and confusions[0] != names:
                return None, 0, [f"{run.name} was evaluated on other images: only seeds are resampled."]
            names, counts[arm, seeds.index(seed)] = confusions
    if len(names) < MIN_IMAGES:
        return None, 0, []
    score = FROM_COUNTS[metric]
    recomputed = {cell: float(score(c.sum(0))) for cell, c in counts.items()}
    mismatched = [cell for cell, value in recomputed.items() if abs(value - values[cell]) > 1e-3]
    warnings = [
        f"The confusion counts of {len(mismatched)} runs do not match their {metric}, for example "
        f"{compared[arm][seeds[column]].name}: {recomputed[arm, column]:.4f} instead of {values[arm, column]:.4f}."
        for arm, column in mismatched[:1]
    ]
    draws = statistics.image_counts(len(names)).astype(float)
    resampled = np.full((*values.shape, statistics.REPLICATES), math.nan)
    for (arm, column), c in counts.items():
        replicates = score((draws @ c.reshape(len(c), -1)).reshape(-1, *c.shape[1:]))
        resampled[arm, column] = values[arm, column] + replicates - replicates.mean()
    return resampled, len(names), warnings
