"""The evaluated images as a level of their own: their confusion counts, drawn again and again."""

import math
from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np

import unet.report.statistics as statistics
from unet.errors import UserError
from unet.report.measures import FROM_COUNTS
from unet.report.runs import Run

Array = np.ndarray

CONFUSIONS = "confusions.npz"
MIN_IMAGES = 10
"""Below this many the spread between images cannot be told, and only seeds are resampled."""


def read_confusions(run: Run) -> tuple[list[str], np.ndarray] | None:
    """Names of the evaluated images and their counts (N, K, K), row truth, column prediction; None without the file.

    Raises:
        UserError: a file that holds something else.
    """
    path = run.folder / CONFUSIONS
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            names, counts = [str(name) for name in stored["names"]], stored["counts"]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected names and counts; remove it to do without"
        ) from None
    if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or len(names) != len(counts):
        raise UserError(
            f"{path}: {len(names)} names and counts of shape {counts.shape}; expected N names and (N, K, K); remove it "
            "to do without"
        )
    return names, counts


def resample_images(
    compared: Sequence[dict[int, Run]], seeds: Sequence[int], values: Array, metric: str
) -> tuple[Array | None, int, list[str]]:
    """The metric (A, S, R) under draws of the evaluated images, how many there are, and doubts.

    None where runs leave no counts, too few images, or the metric does not follow from them. Every replicate is moved
    so that a run's replicates have its own value as their mean: only their spread is used.
    """
    if metric not in FROM_COUNTS:
        return None, 0, []
    counts: dict[tuple[int, int], Array] = {}
    names: list[str] = []
    for arm, runs in enumerate(compared):
        for seed, run in runs.items():
            try:
                stored = read_confusions(run)
            except UserError as error:
                return None, 0, [f"{error}; intervals speak of seeds alone."]
            if stored is None:
                absent = f"{run.name} has no confusions.npz: intervals speak of seeds alone, not of other images."
                return None, 0, [absent] if counts else []
            if names and stored[0] != names:
                return None, 0, [f"{run.name} was evaluated on other images: intervals speak of seeds alone."]
            names, counts[arm, seeds.index(seed)] = stored
    if len(names) < MIN_IMAGES:
        return None, 0, []
    score = FROM_COUNTS[metric]
    recomputed = {cell: float(score(c.sum(0))) for cell, c in counts.items()}
    mismatched = [cell for cell, value in recomputed.items() if abs(value - values[cell]) > 1e-3]
    warnings = [
        f"The counts of {len(mismatched)} runs do not give their {metric}, such as "
        f"{compared[arm][seeds[column]].name}: {recomputed[arm, column]:.4f}, not {values[arm, column]:.4f}."
        for arm, column in mismatched[:1]
    ]
    draws = statistics.image_counts(len(names)).astype(float)
    resampled = np.full((*values.shape, statistics.REPLICATES), math.nan)
    for (arm, column), c in counts.items():
        replicates = score((draws @ c.reshape(len(c), -1)).reshape(-1, *c.shape[1:]))
        resampled[arm, column] = values[arm, column] + replicates - replicates.mean()
    return resampled, len(names), warnings
