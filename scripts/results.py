"""What is kept of runs and sweeps in ``docs/results``, and the README's table of it.

python scripts/results.py add outputs/RUN NAME       keep a run's metrics and command as docs/results/NAME.json
python scripts/results.py sweep outputs/SWEEP NAME   keep a sweep's report, values and figures in docs/results/NAME
python scripts/results.py table                      write the table into the README
"""

import argparse
import base64
import csv
import io
import json
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from unet.errors import UserError
from unet.record import METRICS, ROOT, read_json, with_block, write_json, write_text
from unet.report import examine
from unet.report.page import figures, markdown
from unet.report.results import rows
from unet.report.runs import read_run

RESULTS, README = ROOT / "docs" / "results", ROOT / "README.md"
BEGIN, END = "<!-- results: scripts/results.py table -->", "<!-- end of results -->"


def add(run: Path, name: str) -> Path:
    """Keep a finished run's metrics with the command that made them; places on this machine become PATH."""
    metrics = read_json(run / METRICS)
    if not metrics:
        raise UserError(f"{run / METRICS}: no such file; expected the folder of a finished run")
    words = [word for word in shlex.split(read_run(run).command) if not word.startswith("hydra.")]
    words = ["data.root=PATH" if word.startswith("data.root=") else word for word in words]
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in metrics.items() if key != "model/stages"}  # long, and told by the command
    write_json(RESULTS / f"{name}.json", {"command": shlex.join(words), **kept})
    return RESULTS / f"{name}.json"


def add_sweep(folder: Path, name: str) -> Path:
    """Keep a sweep's ``report.md``, ``results.csv`` and figures as SVG; places on this machine become PATH."""
    study = examine(folder)
    kept = RESULTS / name
    kept.mkdir(parents=True, exist_ok=True)
    drawn = figures(study)
    pictures = [*drawn["overview"], *drawn["cost_figures"], *drawn["curves"]]
    links = []
    for picture in pictures:
        path = kept / f"{re.sub('[^a-z0-9]+', '_', picture.title.lower()).strip('_')}.svg"
        write_text(path, base64.b64decode(picture.uri.partition(",")[2]).decode())
        links.append(f"![{picture.title}]({path.name})")
    write_text(kept / "report.md", without_places("\n\n".join([markdown(study), "## Figures", *links])) + "\n")
    write_text(kept / "results.csv", without_places(without_column(rows(study), "model/stages")))
    return kept


def without_places(text: str) -> str:
    """Text in which no command says where data lie, whether the shell needed quotes for it or not."""
    return re.sub(r"""(["'])data\.root=.*?\1|data\.root=[^\s,|"']+""", "data.root=PATH", text)


def without_column(text: str, name: str) -> str:
    """CSV without one of its columns: a network's levels are long, and told by the command."""
    read = list(csv.DictReader(io.StringIO(text)))
    columns = [column for column in read[0] if column != name]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(read)
    return buffer.getvalue()


def table() -> str:
    """One row a kept run: what was run, on what, what came out."""
    rows = ["| run | split | mIoU | per class IoU | steps | minutes | commit |", "|---|---|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        run = json.loads(path.read_text())
        split = "test" if "test/miou" in run else "val"
        prefix = f"{split}/iou/"
        iou = {key.removeprefix(prefix): value for key, value in run.items() if key.startswith(prefix)}
        classes = ", ".join(f"{name} {value:.3f}" for name, value in iou.items())
        cells = (
            f"`{run['command']}`, seed {run['seed']}",
            split,
            f"{run[f'{split}/miou']:.4f}",
            classes,
            str(run["steps"]),
            f"{run['time/train_seconds'] / 60:.1f}",
            run["commit"][:10],
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def updated(readme: str) -> str:
    """The README with the table as it should be."""
    return with_block(readme, BEGIN, table(), END)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("add", help="keep a run in docs/results")
    keep.add_argument("run", type=Path)
    keep.add_argument("name")
    keep = commands.add_parser("sweep", help="keep a sweep in docs/results")
    keep.add_argument("run", type=Path)
    keep.add_argument("name")
    commands.add_parser("table", help="write the README's table")
    arguments = parser.parse_args()
    try:
        if arguments.command == "table":
            write_text(README, updated(README.read_text()))
        else:
            keep_one = {"add": add, "sweep": add_sweep}[arguments.command]
            print(keep_one(arguments.run, arguments.name).relative_to(ROOT))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
