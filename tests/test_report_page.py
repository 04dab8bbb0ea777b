"""Check a report: conclusions that follow from the numbers, one self-contained page, all raw values."""

import base64
import csv
import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sweeps import leave_run, metrics_of, sweep_of

from unet.commands import report as command
from unet.report import analyze, write_report
from unet.report.page import render_html
from unet.report.plots import pareto_front, plot_questions
from unet.report.summary_text import conclusions, format_number
from unet.report.tables import format_mean_and_sd

ARMS = [{"model.down": "max"}, {"model.down": "avg"}, {"model.down": "strided"}]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: checks that tags nest, collects what is loaded, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.loads += [tag] * (tag in ("script", "link", "iframe"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def noisy(arms: int, seeds: int, effect: float = 0.0, spread: float = 0.01) -> np.ndarray:
    """(A, S) scores around 0.6, the last arm better by ``effect``; seeds affect all arms equally."""
    rng = np.random.default_rng(1)
    values = 0.6 + rng.normal(0, 0.02, seeds) + rng.normal(0, spread, (arms, seeds))
    values[-1] += effect
    return values


def test_decided_questions_are_stated_with_size_and_interval(tmp_path: Path):
    analysis = analyze(sweep_of(tmp_path, ARMS, noisy(3, 9, effect=0.2)))
    sentences = conclusions(analysis)
    assert sentences[0] == (
        f"made_up, 9 seeds: mean test mIoU {format_number(analysis.scores.means().min())} to "
        f"{format_number(analysis.scores.means().max())} over 3 arms."
    )
    better = [q for q in analysis.questions if analysis.verdict(q) == "better"]
    assert {(q.first, q.second) for q in better} == {("strided", "max"), ("strided", "avg")}
    for q in better:
        c = q.contrast
        start = f"strided is better than {q.second} by {format_number(c.difference)} (95 % interval "
        sentence = next(s for s in sentences if s.startswith(start))
        assert f"{format_number(c.low)} to {format_number(c.high)})" in sentence
    assert any(s.startswith("Undecided: max vs avg (") for s in sentences)


def test_equal_levels_are_called_equal_and_the_cheaper_one_is_named(tmp_path: Path):
    for arm, flops in (("transposed", 100), ("bilinear", 125)):
        for seed in range(12):
            score = 0.6 + 0.01 * seed + (0.0005 if arm == "bilinear" else 0.001 * (-1) ** seed)
            metrics = metrics_of(score, seed) | {"model/flops": flops}
            leave_run(tmp_path, {"model.up": arm, "seed": seed}, metrics)
    (sentence,) = conclusions(analyze(tmp_path))[1:]
    assert sentence.startswith("bilinear and transposed are practically equal: difference 0.0005")
    assert sentence.endswith("transposed has 20 % fewer operations: take it.")
    undecided = conclusions(analyze(tmp_path, margin=1e-4))
    assert undecided[1].startswith("Undecided: bilinear vs transposed (")


def test_undecided_questions_come_with_the_power_and_the_seeds_needed(tmp_path: Path):
    sentences = " ".join(conclusions(analyze(sweep_of(tmp_path, ARMS, noisy(3, 9, spread=0.03)))))
    assert "Undecided: " in sentences and " is better than " not in sentences
    shown = re.search(r"A true difference of ([\d.]+) would have been shown with 80 % probability", sentences)
    needed = re.search(r"To tell a difference of 0.01 from none takes about (\d+) seeds per arm", sentences)
    assert shown and 0.03 < float(shown[1]) < 0.1
    assert needed and 100 < int(needed[1]) < 600


@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_three_seeds_decide_nothing(tmp_path: Path, effect: float):
    analysis = analyze(sweep_of(tmp_path, ARMS[:2], noisy(2, 3, effect)))
    sentences = conclusions(analysis)
    assert sentences[1] == "Nothing can be decided with 3 seeds: at least 6 are needed, 12 are recommended."
    assert not any(analysis.is_decided(question) for question in analysis.questions)
    assert "is better than" not in " ".join(sentences)
    assert "too few seeds" in Page(render_html(analysis)).text


def test_the_lower_loss_is_better(tmp_path: Path):
    for arm, loss in (("max", 0.9), ("avg", 0.5)):
        for seed in range(7):
            metrics = metrics_of(0.5, seed, test__loss=loss + 0.01 * seed * (arm == "max"))
            leave_run(tmp_path, {"model.down": arm, "seed": seed}, metrics)
    analysis = analyze(tmp_path, metric="loss", margin=0.01)
    assert conclusions(analysis)[1].startswith("avg is better than max by 0.4300 (")
    question = analysis.questions[0]
    assert {question.first, question.second} == {"max", "avg"}


def test_the_figure_has_a_row_for_every_question(tmp_path: Path):
    arms = [{"model.up": name} for name in ("a", "b", "interpolation_of_some_kind_or_other_" * 2)]
    analysis = analyze(sweep_of(tmp_path, arms, noisy(3, 7)))
    svg = base64.b64decode(plot_questions(analysis, analysis.questions).uri.partition(",")[2]).decode()
    assert svg.count("…<") == 2 and " vs " in svg  # two of three names are cut


def test_a_larger_network_is_noted(tmp_path: Path):
    for arm, size in (("max", 1000), ("strided", 1500)):
        for seed in range(7):
            metrics = metrics_of(0.5 + size / 1e4 + seed / 1e3, seed) | {"model/parameters": size}
            leave_run(tmp_path, {"model.down": arm, "seed": seed}, metrics)
    assert "It has 1.50 times the parameters" in conclusions(analyze(tmp_path))[1]


def test_sweeps_with_nothing_to_compare(tmp_path: Path):
    one = sweep_of(tmp_path / "one", [{}], np.array([[0.5, 0.6]]))
    assert conclusions(analyze(one)) == [
        "made_up, 2 seeds: mean test mIoU 0.5500, standard deviation 0.0707.",
        "Only one arm has finished runs: there is nothing to compare.",
    ]
    leave_run(tmp_path / "none", {"seed": 0}, None, "running")
    assert conclusions(analyze(tmp_path / "none")) == ["No run has finished with a mIoU: there is nothing to compare."]
    sweep_of(tmp_path / "apart", ARMS[:1], np.array([[0.5]]))
    sweep_of(tmp_path / "apart", ARMS[1:2], np.array([[0.5]]), first_seed=5)
    assert conclusions(analyze(tmp_path / "apart"))[1] == "Nothing is compared: no two of 2 arms share a seed."
    for folder in ("one", "none", "apart"):
        Page(write_report(analyze(tmp_path / folder)).read_text())


def test_failed_missing_and_diverged_runs_and_unsafe_names(tmp_path: Path):
    """One failed arm, one missing seed, one diverged run; names that would break a page."""
    sweep_of(tmp_path, ARMS[:1], noisy(1, 4))
    for seed in (0, 1, 2):
        leave_run(tmp_path, {**ARMS[1], "seed": seed}, metrics_of(math.nan if seed == 2 else 0.61, seed))
    run = leave_run(tmp_path, {"seed": 0}, None, "failed", "out of <memory> | `here`")
    config = (run / "config.yaml").read_text().replace("down: max", "down: <script>alert(1)</script>|`x`")
    (run / "config.yaml").write_text(config)
    path = write_report(analyze(tmp_path))
    page = Page(path.read_text())
    assert "<script>" not in path.read_text() and "<script>alert(1)</script>" in page.text
    for text in ("out of <memory> | `here`", "diverged", "its test/miou is nan", "other arms have a run of this seed"):
        assert text in page.text
    assert "2 runs excluded" in page.text
    markdown = (tmp_path / "report.md").read_text()
    assert "out of \\<memory\\> \\| \\`here\\`" in markdown and "<script>" not in markdown
    tables = [block for block in re.split(r"\n(?!\|)", markdown) if block.startswith("|")]
    for block in tables:
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}
        assert len(bars) == 1, block


def test_the_page_is_self_contained_and_reproducible(tmp_path: Path):
    arms = [{"model.down": d, "model.up": u} for d in ("max", "avg") for u in ("nearest", "transposed")]
    sweep_of(tmp_path, arms, noisy(4, 8))
    for run in tmp_path.glob("*seed=0"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 900, 3), np.uint8)).save(
            run / "predictions.png"
        )
    path = write_report(analyze(tmp_path))
    assert path == tmp_path / "report.html"
    text = path.read_text()
    page = Page(text)
    assert page.loads and all(load.startswith("data:image/") for load in page.loads)
    assert "@import" not in text and "url(" not in text
    assert "@media print" in text and "@media (max-width" in text and 'name="viewport"' in text
    assert sum(load.startswith("data:image/png") for load in page.loads) == 4
    assert "All differences between levels of a factor" in page.text
    assert "model.down and model.up" in page.text
    write_report(analyze(tmp_path))
    assert path.read_text() == text  # the same runs give the same page


def test_data_of_one_dimension_without_costs_or_diagnostics(tmp_path: Path):
    """1-D data of other names, no model/ or time/ keys, validation only, a factor that is no operator."""
    for loss in ("dice", "focal"):
        for seed in range(2):
            metrics = {"val/miou": 0.5 + seed / 10, "val/iou/left lane": 0.4, "seed": seed}
            metrics["model/receptive_field"] = [44]
            leave_run(tmp_path, {"loss.name": loss, "seed": seed}, metrics)
    page = Page(write_report(analyze(tmp_path)).read_text())
    for text in ("val mIoU", "left lane", "name=dice", "Not measured: boundary IoU", "No predictions.png"):
        assert text in page.text
    assert "Common claims" not in page.text


def test_an_incomplete_grid_has_no_main_effects(tmp_path: Path):
    arms = [{"model.down": d, "model.up": u} for d, u in (("max", "nearest"), ("avg", "nearest"), ("avg", "haar"))]
    page = Page(write_report(analyze(sweep_of(tmp_path, arms, noisy(3, 7)))).read_text())
    assert "no run" in page.text and "needs a seed that every cell has" in page.text


def test_measured_diagnostics_are_shown(tmp_path: Path):
    for arm in ("max", "avg"):
        for seed in range(2):
            keys = {f"test/objects/pole/{lo}-{lo * 4}": 0.2 + lo / 100 for lo in (4, 16)}
            keys |= {f"test/objects_count/pole/{lo}-{lo * 4}": 7 for lo in (4, 16)}
            keys |= {f"test/trimap/{r}": 0.4 for r in (1, 2, 10)}
            keys |= {"test/information/3": 0.5, "test/boundary/bf": 0.25}
            leave_run(tmp_path, {"model.down": arm, "seed": seed}, metrics_of(0.5, seed) | keys)
    page = Page(write_report(analyze(tmp_path)).read_text())
    for text in ("pole", "near the boundaries", "information by level", "0.2500", "small objects"):
        assert text in page.text


def test_the_csv_has_every_run_and_every_value(tmp_path: Path):
    sweep_of(tmp_path, ARMS[:2], noisy(2, 2))
    leave_run(tmp_path, {**ARMS[2], "seed": 0}, None, "failed", 'said "no", twice,\nand left')
    write_report(analyze(tmp_path))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == 5
    for row in rows[:4]:
        metrics = json.loads((tmp_path / row["run"] / "metrics.json").read_text())
        for key, value in metrics.items():
            assert row[key] == value if isinstance(value, str) else json.loads(row[key]) == value
        assert row["in_statistics"] == "True" and row["config/model.down"] in ("max", "avg")
    assert rows[4]["state"] == "failed" and rows[4]["reason"].startswith('said "no"') and rows[4]["test/miou"] == ""


def test_the_command_prints_conclusions_and_errors(tmp_path: Path, capsys, monkeypatch):
    sweep_of(tmp_path, ARMS, noisy(3, 9, effect=0.2))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "margin=0.5"])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "report.html") and any(
        "max and avg are practically equal" in line for line in lines
    )
    monkeypatch.setattr(sys, "argv", ["report.py", f"folder={tmp_path}", "metric=miouu"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no run has test/miouu in its metrics.json; did you mean miou?" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["report.py"])
    with pytest.raises(SystemExit):
        command.main()
    assert "error: folder: is required; see python scripts/report.py --help" in capsys.readouterr().err


def test_format_number():
    assert [format_number(v) for v in (0.01234, 12.34, 12345.6, 0.0, -0.00001234, math.nan)] == [
        "0.0123", "12.3", "12,346", "0.0000", "-1.23e-05", "\N{EN DASH}"
    ]  # fmt: skip


def test_the_pareto_front():
    costs, scores = np.array([1.0, 2, 3, 2]), np.array([0.5, 0.7, 0.6, 0.4])
    assert pareto_front(costs, scores).tolist() == [0, 1]


def test_a_deviation_has_the_decimals_of_its_mean():
    assert format_mean_and_sd(14.8231, 4.3139) == "14.8 ± 4.3"
    assert format_mean_and_sd(0.99713, 1.2e-16) == "0.9971 ± 0.0000"
    assert format_mean_and_sd(0.5, 0.0123) == "0.5000 ± 0.0123"
    assert format_mean_and_sd(12_345.6, 78.9) == "12,346 ± 79"
    assert format_mean_and_sd(0.5, 2e-6) == "0.5000 ± 2e-06"
    assert format_mean_and_sd(0.5, float("nan")) == "0.5000"
