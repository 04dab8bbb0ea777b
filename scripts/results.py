"""The results table of the README, from runs kept in ``docs/results``.

python scripts/results.py add outputs/RUN NAME     keep a run's metrics and command as docs/results/NAME.json
python scripts/results.py table                    write the table into the README
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from unet.errors import UserError
from unet.record import CONFIG, METRICS, ROOT, read_json, with_block, write_json, write_text

RESULTS, README = ROOT / "docs" / "results", ROOT / "README.md"
BEGIN, END = "<!-- results: scripts/results.py table -->", "<!-- end of results -->"


def add(run: Path, name: str) -> Path:
    """Keep a finished run's metrics with the command that made them; places on this machine become PATH."""
    metrics = read_json(run / METRICS)
    if not metrics:
        raise UserError(f"{run / METRICS}: no such file; expected the folder of a finished run")
    first = (run / CONFIG).read_text().splitlines()[0].removeprefix("# ")
    words = [word for word in shlex.split(first) if not word.startswith("hydra.")]
    words = ["data.root=PATH" if word.startswith("data.root=") else word for word in words]
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in metrics.items() if key != "model/stages"}  # long, and told by the command
    write_json(RESULTS / f"{name}.json", {"command": shlex.join(words), **kept})
    return RESULTS / f"{name}.json"


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
    commands.add_parser("table", help="write the README's table")
    arguments = parser.parse_args()
    try:
        if arguments.command == "add":
            print(add(arguments.run, arguments.name).relative_to(ROOT))
        else:
            write_text(README, updated(README.read_text()))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
