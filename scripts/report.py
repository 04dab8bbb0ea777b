"""A sweep's report: which arms differ, by how much, and what it cost.

    python scripts/report.py outputs/SWEEP
    python scripts/report.py outputs/SWEEP --metric boundary/iou --reference 'max + transposed'
    python scripts/report.py outputs/SWEEP --tune optim.lr

Writes report.html (one file, works offline), report.md and results.csv into the sweep's folder. With a reference all
other arms are compared with it alone. Of a key to tune, every arm is compared at the value that validation prefers.
docs/report.md says how to read it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from unet.errors import UserError
from unet.report import analyze, save
from unet.report.words import summary_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the sweep, with one folder a run in it")
    parser.add_argument("--metric", default="miou", help="a key of metrics.json without its split (default: miou)")
    parser.add_argument("--reference", metavar="ARM", help="the arm to compare all others with (default: every pair)")
    parser.add_argument("--tune", metavar="KEY", help="a swept key, such as optim.lr: each arm at its own best value")
    arguments = parser.parse_args()
    try:
        analysis = analyze(arguments.folder, arguments.metric, arguments.reference, arguments.tune)
        path = save(analysis)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(path, *summary_lines(analysis), sep="\n")


if __name__ == "__main__":
    main()
