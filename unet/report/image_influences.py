"""Compute how much each evaluated image changes a score, from the confusion counts of the runs."""

import math
from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np

from unet.errors import UserError
from unet.io.config_keys import SPLIT_SEED
from unet.report.metrics import FROM_COUNTS
from unet.report.read_sweep import Replicate, Run

Array = np.ndarray

CONFUSIONS = "confusions.npz"
MIN_UNITS = 10
"""With fewer images or groups, intervals speak of the evaluated images only."""


def read_confusions(run: Run) -> tuple[list[str], Array] | None:
    """Return the names of the evaluated units and their counts (N, K, K), row truth, column prediction.

    A unit is an image, or a group of dependent images (the frames of a clip, the slices of a volume). None without a
    file.

    Raises:
        UserError: the file has other contents.
    """
    path = run.folder / CONFUSIONS
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            names, counts = [str(name) for name in arrays["names"]], arrays["counts"]
            groups = [str(group) for group in arrays["groups"]] if "groups" in arrays else names
        if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or not len(names) == len(counts) == len(groups):
            raise ValueError(f"{len(names)} names, {len(groups)} groups and counts of shape {counts.shape}")
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected N names, N groups and counts (N, K, K); remove the file"
        ) from None
    units = list(dict.fromkeys(groups))
    sums = np.zeros((len(units), *counts.shape[1:]), counts.dtype)
    np.add.at(sums, [units.index(group) for group in groups], counts)
    return units, sums


def image_influences(
    compared: Sequence[dict[Replicate, Run]], seeds: Sequence[Replicate], values: Array, metric: str
) -> tuple[Array | None, int, list[str]]:
    """Return the changes of the metric (A, S, N) if a unit is left out, the number N of units, and warnings.

    The changes are None if runs have no counts or too few units, or the metric does not follow from counts.
    """
    if metric not in FROM_COUNTS:
        return None, 0, []
    counts: dict[tuple[int, int], Array] = {}
    units: list[str] = []
    splits: set[int | None] = set()
    for arm, runs in enumerate(compared):
        for seed, run in runs.items():
            try:
                confusions = read_confusions(run)
            except UserError as error:
                return None, 0, [f"{error}; intervals speak of the evaluated images only."]
            if confusions is None:
                warning = f"{run.name} has no confusions.npz: intervals speak of the evaluated images only."
                return None, 0, [warning] if counts else []
            splits.add(run.setting(SPLIT_SEED))
            if units and confusions[0] != units and (run.fold is not None or len(splits) > 1):
                return None, 0, []  # every fold or split is evaluated on its own images
            if units and confusions[0] != units:
                warning = f"{run.name} was evaluated on other images: intervals speak of seeds and splits only."
                return None, 0, [warning]
            units, counts[arm, seeds.index(seed)] = confusions
    if len(units) < MIN_UNITS:
        return None, len(units), []
    score = FROM_COUNTS[metric]
    totals = {cell: float(score(c.sum(0))) for cell, c in counts.items()}
    mismatched = [cell for cell, value in totals.items() if abs(value - values[cell]) > 1e-3]
    warnings = [
        f"The confusion counts of {len(mismatched)} runs do not match their {metric}, for example "
        f"{compared[arm][seeds[column]].name}: {totals[arm, column]:.4f} instead of {values[arm, column]:.4f}."
        for arm, column in mismatched[:1]
    ]
    influences = np.full((*values.shape, len(units)), math.nan)
    for cell, c in counts.items():
        influences[cell] = score(c.sum(0, keepdims=True) - c) - totals[cell]
    return influences, len(units), warnings
