"""The scripts that maintain tables and pictures."""

import csv
import json
import re

from conftest import ROOT, script
from sweeps import leave_run, metrics_of

from unet import CONTEXT, DOWN, UP


def test_a_saved_result_contains_no_path_of_this_machine(tmp_path, monkeypatch):
    results = script("results")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        "# python train.py model.down=avg data.root=/secret/place hydra.run.dir=/tmp/x\nseed: 3\n"
    )
    metrics = {"test/miou": 0.5, "test/iou/sea": 0.25, "seed": 3, "steps": 7, "time/train_seconds": 90, "commit": "abc"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    saved = json.loads(results.add(run, "mine").read_text())
    assert saved["command"] == "python train.py model.down=avg data.root=PATH"
    row = "| `python train.py model.down=avg data.root=PATH`, seed 3 | test | 0.5000 | sea 0.250 | 7 | 1.5 | abc |"
    assert row in results.run_table()
    baseline = {"from": "colour", "split": "val", "scores": {"miou": 0.25, "iou/sea": 0.125}}
    (tmp_path / "results" / "baseline").mkdir()
    (tmp_path / "results" / "baseline" / "pond.json").write_text(json.dumps(baseline))
    study, runs = (results.BEGIN_STUDY, results.END_STUDY), (results.BEGIN, results.END)
    blocks = study, runs, (results.BEGIN_BASELINES, results.END_BASELINES)
    page = results.update("".join(f"before\n{begin}\nold\n{end}\nafter" for begin, end in blocks))
    assert row in page and "| `pond` | val | 0.250 | sea 0.125 |" in page and "old" not in page
    assert results.update(page) == page


def test_a_saved_sweep_has_report_values_and_figures_and_no_path(tmp_path, monkeypatch):
    results = script("results")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    for down, score in (("max", 0.5), ("avg", 0.6)):
        for seed in range(2):
            metrics = metrics_of(score + seed / 100, seed) | {"model/stages": [{"level": 0}]}
            leave_run(tmp_path / "mine", {"model.down": down, "seed": seed, "data.root": "secret"}, metrics)
    folder = results.add_sweep(tmp_path / "mine", "study_mine")
    report, values = (folder / "report.md").read_text(), (folder / "results.csv").read_text()
    assert "=secret" not in report + values and "data.root=PATH" in report and "model/stages" not in values
    assert len(list(csv.DictReader(values.splitlines()))) == 4
    table = results.study_table().splitlines()
    assert len(table) == 4 and table[2].startswith("| model.down: avg vs max | too few seeds 0.1000 (")
    pictures = re.findall(r"!\[.*\]\((.*)\)", report)
    assert results.mask_paths("train.py 'data.root=/my own/place' seed=1") == "train.py data.root=PATH seed=1"
    assert pictures and all((folder / name).read_text().rstrip().endswith("</svg>") for name in pictures)


def test_the_results_of_the_readme_are_current():
    """python scripts/maintain/results.py table writes them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script("results").update(readme) == readme


def test_the_operator_table_of_the_readme_is_current():
    """python scripts/maintain/operator_table.py writes it."""
    table, readme = script("operator_table"), (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.update(readme) == readme
    for name in [*DOWN, *UP, *CONTEXT]:
        assert name == "none" or f"| `{name}`" in readme


def test_the_columns_of_the_operator_table():
    table = script("operator_table")
    assert table.is_deterministic(UP, "transposed", 2) and not table.is_deterministic(UP, "linear", 2)
    assert table.is_deterministic(DOWN, "avg", 2) and not table.is_deterministic(DOWN, "avg", 3)
    assert table.options(UP["carafe"]) == "`kernel_size=5` `compressed=64`" and table.options(DOWN["soft"]) == ""
    assert table.options(DOWN["max"]) == "`kernel_size`" and table.options(DOWN["strided"]) == "`kernel_size=3`"
    assert table.supported_dims(UP, "bicubic") == [2] and table.supported_dims(UP, "linear") == [1, 2, 3]
    assert [table.field(DOWN, name) for name in ("max", "strided", "blur")] == ["2", "3", "4"]
    assert table.flops(UP, "transposed") == 2 * 4 * 128 * 64 * 32 * 32
