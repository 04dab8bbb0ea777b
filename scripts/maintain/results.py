"""Keep runs, sweeps and baselines in ``docs/results``, and write the README's tables of them.

python scripts/maintain/results.py add outputs/RUN NAME       keep a run's metrics and command as docs/results/NAME.json
python scripts/maintain/results.py sweep outputs/SWEEP NAME   keep a sweep's report and values in docs/results/NAME
python scripts/maintain/results.py baseline NAME              keep the colour baseline of data=NAME
python scripts/maintain/results.py table                      write the tables into the README
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

from unet.errors import UserError
from unet.io.atomic import read_json, replace_block, write_json, write_text
from unet.io.provenance import ROOT
from unet.io.run_folder import METRICS
from unet.report import analyze
from unet.report.csv_table import to_csv
from unet.report.page import figures, render_markdown
from unet.report.read_sweep import read_run

RESULTS, README = ROOT / "docs" / "results", ROOT / "README.md"
BASELINES = "baseline"
BEGIN, END = "<!-- results: scripts/maintain/results.py table -->", "<!-- end of results -->"
BEGIN_BASELINES, END_BASELINES = "<!-- baselines: scripts/maintain/results.py table -->", "<!-- end of baselines -->"


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
    analysis = analyze(folder)
    kept = RESULTS / name
    kept.mkdir(parents=True, exist_ok=True)
    drawn = figures(analysis)
    pictures = [*drawn["overview"], *drawn["cost_figures"], *drawn["curves"]]
    links = []
    for picture in pictures:
        path = kept / f"{re.sub('[^a-z0-9]+', '_', picture.title.lower()).strip('_')}.svg"
        write_text(path, base64.b64decode(picture.uri.partition(",")[2]).decode())
        links.append(f"![{picture.title}]({path.name})")
    write_text(
        kept / "report.md", without_places("\n\n".join([render_markdown(analysis), "## Figures", *links])) + "\n"
    )
    write_text(kept / "results.csv", without_places(without_column(to_csv(analysis), "model/stages")))
    return kept


def add_baseline(name: str) -> Path:
    """Keep the scores of the colour baseline on a data set."""
    from hydra import compose, initialize_config_dir

    from unet.commands.baseline import score

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        result = score(compose("train", [f"data={name}"]))
    path = RESULTS / BASELINES / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def baseline_table() -> str:
    """Return a row for every kept baseline."""
    rows = ["| data | split | mIoU | per class IoU |", "|---|---|---|---|"]
    for path in sorted((RESULTS / BASELINES).glob("*.json")):
        result = json.loads(path.read_text())
        scores = result["scores"]
        rows.append(f"| `{path.stem}` | {result['split']} | {scores['miou']:.3f} | {class_scores(scores, 'iou/')} |")
    return "\n".join(rows)


def class_scores(metrics: dict[str, float], prefix: str) -> str:
    """Return ``sky 0.943, road 0.959`` from the keys that begin with ``prefix``."""
    found = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


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
        cells = (
            f"`{run['command']}`, seed {run['seed']}",
            split,
            f"{run[f'{split}/miou']:.4f}",
            class_scores(run, f"{split}/iou/"),
            str(run["steps"]),
            f"{run['time/train_seconds'] / 60:.1f}",
            run["commit"][:10],
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def updated(readme: str) -> str:
    """Return the README with the tables as they should be."""
    return replace_block(replace_block(readme, BEGIN, table(), END), BEGIN_BASELINES, baseline_table(), END_BASELINES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("add", help="keep a run in docs/results")
    keep.add_argument("run", type=Path)
    keep.add_argument("name")
    keep = commands.add_parser("sweep", help="keep a sweep in docs/results")
    keep.add_argument("run", type=Path)
    keep.add_argument("name")
    commands.add_parser("baseline", help="keep the colour baseline of a data set").add_argument("name")
    commands.add_parser("table", help="write the README's tables")
    arguments = parser.parse_args()
    try:
        if arguments.command == "table":
            write_text(README, updated(README.read_text()))
        elif arguments.command == "baseline":
            print(add_baseline(arguments.name).relative_to(ROOT))
        else:
            keep_one = {"add": add, "sweep": add_sweep}[arguments.command]
            print(keep_one(arguments.run, arguments.name).relative_to(ROOT))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
