"""Account for reports on the same sweep before all of its seeds: who looks often finds differences by chance.

``reports.json`` in a sweep's folder has the number of seeds of every report that could decide anything.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from unet.errors import UserError
from unet.io.atomic import read_json, write_json
from unet.report.statistics import ALPHA, MIN_SEEDS

REPORTS = "reports.json"


@dataclass(frozen=True)
class Look:
    """How much of a sweep a report sees: ``seeds`` of the ``planned`` ones, and the error rate left for it."""

    seeds: int
    planned: int
    alpha: float = ALPHA
    warning: str = ""


def plan_look(folder: Path, seeds: int, planned: int) -> Look:
    """Return the error rate of a report on ``seeds`` of ``planned`` seeds, after the earlier reports in the folder.

    A fraction t of the seeds may use 2 - 2 Phi(z / sqrt(t)) of the error rate (O'Brien & Fleming's boundary as a
    spending function; Lan & DeMets 1983, https://doi.org/10.1093/biomet/70.3.659), less what earlier reports used. If
    all planned seeds had been reported and others were added, nothing is left: the full rate is used again, with a
    warning.
    """
    earlier = [look for look in read_looks(folder) if look.seeds < seeds]
    if seeds < MIN_SEEDS:
        return Look(seeds, planned)
    complete = [look.seeds for look in earlier if look.seeds >= look.planned]
    if complete:
        return Look(
            seeds,
            planned,
            warning=f"Seeds were added after a report on all {complete[-1]} planned seeds. This report does not "
            f"correct for that: together the reports have up to {len(complete) + 1} times the error rate of 5 %.",
        )
    used = max((spent(look.seeds / look.planned) for look in earlier), default=0.0)
    alpha = max(0.0, spent(seeds / planned) - used)
    warning = ""
    if alpha < ALPHA:
        state = "" if seeds >= planned else f"Only {seeds} of {planned} planned seeds are complete. "
        counted = f"{len(earlier)} earlier report{'s' * (len(earlier) != 1)}" if earlier else "later reports"
        warning = f"{state}Intervals are widened (to {100 * (1 - alpha):.3g} %) to account for {counted}."
    return Look(seeds, planned, alpha, warning)


def spent(fraction: float) -> float:
    """Return the part of the error rate that may be used at a fraction of the seeds."""
    if fraction >= 1:
        return ALPHA
    return float(2 * stats.norm.sf(stats.norm.isf(ALPHA / 2) / math.sqrt(fraction)))


def read_looks(folder: Path) -> list[Look]:
    """Return the earlier reports on a sweep. Raises UserError if the file has other contents."""
    saved = read_json(folder / REPORTS).get("reports", [])
    try:
        looks = [Look(int(entry["seeds"]), int(entry["planned"])) for entry in saved]
    except (TypeError, KeyError, ValueError) as error:
        looks, saved = [], repr(error)
    if any(look.planned < 1 for look in looks) or isinstance(saved, str):
        raise UserError(
            f"{folder / REPORTS}: cannot be read (found {saved}); expected {{'reports': [{{'seeds': N, 'planned': N}}, "
            f"...]}}; repair it, or remove it to forget earlier reports"
        )
    return looks


def record_look(folder: Path, look: Look) -> None:
    """Add a report to the list of a sweep's folder, once for a number of seeds."""
    looks = read_looks(folder)
    if look.seeds >= MIN_SEEDS and look.seeds not in [earlier.seeds for earlier in looks]:
        write_json(folder / REPORTS, {"reports": [{"seeds": x.seeds, "planned": x.planned} for x in (*looks, look)]})
