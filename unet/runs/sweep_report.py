"""The report at the end of a sweep."""

import os
import sys
from pathlib import Path

from unet.runs.error_messages import format_error
from unet.runs.job_server import fork_job, has_server


def report_sweep(folder: Path) -> None:
    """Write a sweep's report and print its summary, in a process forked from the server if there is one.

    The server has imported matplotlib, SciPy and torch already, which takes seconds.
    """
    sys.stdout.flush()
    if not has_server() or fork_job(__name__, [str(folder)], None, os.environ).wait() != 0:
        write_report(folder)


def main() -> None:
    """Write the report of the folder that is the argument."""
    write_report(Path(sys.argv[1]))


def write_report(folder: Path) -> None:
    """Write a sweep's report and print its summary; print a message where that fails."""
    from unet import report
    from unet.report.hparams import write_hparams_summary
    from unet.report.summary_text import summary_lines

    try:
        analysis = report.analyze(folder)
        print(report.write_report(analysis), *summary_lines(analysis), sep="\n")
        write_hparams_summary(analysis)
    except Exception as error:  # the exit status of a sweep tells how its jobs ended
        print(f"the report is not complete: {format_error(error)}", file=sys.stderr)
