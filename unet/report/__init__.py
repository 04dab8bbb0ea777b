"""A sweep's runs -> statistics -> ``report.html``, ``report.md`` and ``results.csv``; docs/report.md explains them."""

from pathlib import Path

import unet.report.page as page
import unet.report.results as results
from unet.record import write_text
from unet.report.study import SweepAnalysis, analyze

__all__ = ["SweepAnalysis", "analyze", "save", "write"]

PAGE, MARKDOWN, RESULTS = "report.html", "report.md", "results.csv"


def write(folder: Path, metric: str = "miou", reference: str | None = None, tune: str | None = None) -> Path:
    """Report on the sweep in ``folder``, in that folder; the path of the page.

    Args:
        folder: holds one folder a run, each with ``config.yaml``, ``status.json`` and, if done, ``metrics.json``.
        metric: what is compared: a key of ``metrics.json`` without its split, such as ``miou`` or ``boundary/iou``.
        reference: label of the arm that all others are compared with; None compares every pair.
        tune: a swept key at whose best value, by validation, each arm is compared.

    Raises:
        UserError: nothing there to report, no such metric, no such arm, nothing to tune.
    """
    return save(analyze(folder, metric, reference, tune))


def save(analysis: SweepAnalysis) -> Path:
    """Write the three files of a study into its sweep's folder; the path of the page."""
    folder = analysis.sweep.folder
    write_text(folder / RESULTS, results.rows(analysis))
    write_text(folder / MARKDOWN, page.markdown(analysis))
    write_text(folder / PAGE, page.html(analysis))
    return folder / PAGE
