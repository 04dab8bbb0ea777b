"""Save runs, sweeps and baselines in ``docs/results``, and write the README's tables of them.

python scripts/maintain/results.py add outputs/RUN NAME       save a run's metrics and command as docs/results/NAME.json
python scripts/maintain/results.py sweep outputs/SWEEP NAME   save a sweep's report and values in docs/results/NAME
python scripts/maintain/results.py baseline NAME              save the colour baseline of data=NAME
python scripts/maintain/results.py table                      write the tables into the README
"""

import argparse
import base64
import csv
import io
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from unet.errors import UserError
from unet.io.atomic import read_json, replace_block, write_json, write_text
from unet.io.provenance import ROOT
from unet.io.run_folder import METRICS
from unet.report import analyze
from unet.report.csv_table import to_csv
from unet.report.image_influences import CONFUSIONS, read_confusions
from unet.report.page import figures, render_markdown, render_table
from unet.report.read_sweep import read_run
from unet.report.several_sweeps import Answer, data_name, list_answers, tabulate_answers

ANSWERS = "answers.csv"
RESULTS, README = ROOT / "docs" / "results", ROOT / "README.md"
BASELINES = "baseline"
BEGIN, END = "<!-- results: scripts/maintain/results.py table -->", "<!-- end of results -->"
BEGIN_BASELINES, END_BASELINES = "<!-- baselines: scripts/maintain/results.py table -->", "<!-- end of baselines -->"
BEGIN_STUDY, END_STUDY = "<!-- study: scripts/maintain/results.py table -->", "<!-- end of study -->"


def add(run: Path, name: str) -> Path:
    """Save a finished run's metrics and command; return the file. Paths of data become PATH."""
    metrics = read_json(run / METRICS)
    if not metrics:
        raise UserError(f"{run / METRICS}: no such file; expected the folder of a finished run")
    RESULTS.mkdir(parents=True, exist_ok=True)
    metrics = {key: value for key, value in metrics.items() if key != "model/stages"}  # long, and follows from command
    path = RESULTS / f"{name}.json"
    write_json(path, {"command": read_run(run).published_command, **metrics})
    return path


def add_sweep(sweep: Path, name: str) -> Path:
    """Save a sweep's report, answers, values, figures and confusion counts; return the folder.

    Paths of data become PATH.
    """
    analysis = analyze(sweep)
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    pictures = figures(analysis)
    links = []
    for picture in [*pictures["answers"], *pictures["overview"], *pictures["cost_figures"], *pictures["curves"]]:
        path = folder / f"{re.sub('[^a-z0-9]+', '_', picture.title.lower()).strip('_')}.svg"
        write_text(path, base64.b64decode(picture.uri.partition(",")[2]).decode())
        links.append(f"![{picture.title}]({path.name})")
    write_text(folder / "report.md", mask_paths("\n\n".join([render_markdown(analysis), "## Figures", *links])) + "\n")
    write_text(folder / "results.csv", mask_paths(drop_column(to_csv(analysis), "model/stages")))
    names = [field.name for field in fields(Answer)]
    answers = [[data_name(analysis), *astuple(answer)] for answer in list_answers(analysis)]
    write_text(folder / ANSWERS, write_csv([["data", *names], *answers]))
    counts = {run.name: read[1] for run in analysis.sweep.runs if (read := read_confusions(run))}
    if counts:  # intervals over images can be computed again from these: runs, (units, classes, classes)
        np.savez_compressed(folder / CONFUSIONS, allow_pickle=False, **counts)
    return folder


def add_baseline(name: str) -> Path:
    """Save the scores of the colour baseline on a data set; return the file."""
    from hydra import compose, initialize_config_dir

    from unet.commands.baseline import score

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        result = score(compose("train", [f"data={name}"]))
    path = RESULTS / BASELINES / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def baseline_table() -> str:
    """Return a table with a row for every saved baseline."""
    lines = ["| data | split | mIoU | per class IoU |", "|---|---|---|---|"]
    for path in sorted((RESULTS / BASELINES).glob("*.json")):
        result = json.loads(path.read_text())
        scores = result["scores"]
        lines.append(f"| `{path.stem}` | {result['split']} | {scores['miou']:.3f} | {class_scores(scores, 'iou/')} |")
    return "\n".join(lines)


def class_scores(metrics: dict[str, float], prefix: str) -> str:
    """Return the metrics whose keys begin with ``prefix`` as text such as ``sky 0.943, road 0.959``."""
    return ", ".join(f"{key.removeprefix(prefix)} {metrics[key]:.3f}" for key in metrics if key.startswith(prefix))


def mask_paths(text: str) -> str:
    """Replace the paths of data in commands, quoted or not, by PATH."""
    return re.sub(r"""(["'])data\.root=.*?\1|data\.root=[^\s,|"']+""", "data.root=PATH", text)


def drop_column(text: str, name: str) -> str:
    """Remove a column from CSV text."""
    rows = list(csv.reader(io.StringIO(text)))
    kept = [index for index, column in enumerate(rows[0]) if column != name]
    return write_csv([[row[index] for index in kept] for row in rows])


def write_csv(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV text."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def study_table() -> str:
    """Return a table of the answers of all saved sweeps whose name begins with ``study_``, a column per data set."""
    sweeps = []
    for path in sorted(RESULTS.glob(f"study_*/{ANSWERS}"), reverse=True):  # up operators first
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        answers = []
        for row in rows:
            texts = row["key"], row["first"], row["second"], row["verdict"]
            answers.append(
                Answer(*texts, float(row["difference"]), float(row["low"]), float(row["high"]), int(row["seeds"]))
            )
        sweeps.append((path.parent.name, rows[0]["data"], answers))
    return render_table(tabulate_answers(sweeps))


def run_table() -> str:
    """Return a table with a row for every saved run."""
    lines = ["| run | split | mIoU | per class IoU | steps | minutes | commit |", "|---|---|---|---|---|---|---|"]
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def update(readme: str) -> str:
    """Return the README with current tables."""
    readme = replace_block(readme, BEGIN_STUDY, study_table(), END_STUDY)
    readme = replace_block(readme, BEGIN, run_table(), END)
    return replace_block(readme, BEGIN_BASELINES, baseline_table(), END_BASELINES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, kind in (("add", "run"), ("sweep", "sweep")):
        subparser = commands.add_parser(command, help=f"save a {kind} in docs/results")
        subparser.add_argument("folder", type=Path)
        subparser.add_argument("name")
    commands.add_parser("baseline", help="save the colour baseline of a data set").add_argument("name")
    commands.add_parser("table", help="write the README's tables")
    args = parser.parse_args()
    try:
        if args.command == "table":
            write_text(README, update(README.read_text(encoding="utf-8")))
        elif args.command == "baseline":
            print(add_baseline(args.name).relative_to(ROOT))
        else:
            print({"add": add, "sweep": add_sweep}[args.command](args.folder, args.name).relative_to(ROOT))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
