"""Compare the runs of a sweep and write ``report.html``, ``report.md`` and ``results.csv``; see docs/report.md."""

from pathlib import Path

import unet.report.csv_table as csv_table
import unet.report.page as page
from unet.io.atomic import write_text
from unet.report.analysis import SweepAnalysis, analyze
from unet.report.looks import record_look

__all__ = ["SweepAnalysis", "analyze", "write_report"]

PAGE, MARKDOWN, RESULTS = "report.html", "report.md", "results.csv"


def write_report(analysis: SweepAnalysis) -> Path:
    """Write the files of a report into the sweep's folder, and note which seeds it has; return the path of the page."""
    folder = analysis.sweep.folder
    record_look(folder, analysis.look)
    write_text(folder / RESULTS, csv_table.to_csv(analysis))
    write_text(folder / MARKDOWN, page.render_markdown(analysis))
    write_text(folder / PAGE, page.render_html(analysis))
    return folder / PAGE
