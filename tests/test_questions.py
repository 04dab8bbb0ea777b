"""Questions of a sweep: checked before the runs, kept with the sweep, and compared across sweeps."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from sweeps import leave_run, metrics_of

from unet.commands import report as command
from unet.errors import UserError
from unet.io.config_keys import CONFIGS
from unet.report import analyze
from unet.report.several_sweeps import Answer, answer_table, tabulate_answers
from unet.report.summary_text import NONE
from unet.runs.questions import keep_questions, read_questions


def jobs_of(*overrides: str, ups: tuple[str, ...] = ("transposed", "bilinear")):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", list(overrides))
        return config, [compose("train", [*overrides, f"model.up={up}"]) for up in ups]


def test_questions_are_read_from_the_config():
    assert read_questions(*jobs_of()) == {}
    assert read_questions(*jobs_of("questions={model.up: bilinear}")) == {"model.up": "bilinear"}
    later = read_questions(*jobs_of("questions={model.down: avg}"))  # swept by another command of the same sweep
    assert later == {"model.down": "avg"}


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ("5", "questions=5: expected a mapping of keys to levels, such as {model.up: transposed}"),
        ("{model.upp: bilinear}", "questions: model.upp is no key of the configuration; did you mean model.up?"),
        ("{model.up: bilinaer}", "model.up=bilinaer is not in this sweep; did you mean bilinear?; expected one of"),
    ],
)
def test_wrong_questions_are_refused(questions: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        read_questions(*jobs_of(f"questions={questions}"))


def test_questions_cannot_change_after_the_first_result(tmp_path: Path):
    saved = {"questions": {"model.up": "bilinear"}}
    assert keep_questions(saved, {"model.up": "bilinear"}, True, tmp_path) == {"model.up": "bilinear"}
    assert keep_questions(saved, {"model.up": "transposed"}, False, tmp_path) == {"model.up": "transposed"}
    assert keep_questions(saved, {}, True, tmp_path) == {"model.up": "bilinear"}  # such as more seeds of an arm
    with pytest.raises(UserError, match="which cannot change afterwards; name the same ones or none"):
        keep_questions(saved, {"model.up": "transposed"}, True, tmp_path)
    with pytest.raises(UserError, match="cannot change"):
        keep_questions({}, {"model.up": "transposed"}, True, tmp_path)


def sweep(folder: Path, better: float, reference: str) -> Path:
    """Write eight seeds of two up operators, bilinear better by ``better``."""
    noise = np.random.default_rng(0).normal(0, 0.001, (2, 8))
    for up, shift, row in zip(("transposed", "bilinear"), (0.0, better), noise, strict=True):
        for seed, value in enumerate(row):
            leave_run(folder, {"model.up": up, "seed": seed}, metrics_of(0.6 + shift + value, seed))
    (folder / "sweep.json").write_text(json.dumps({"questions": {"model.up": reference}}))
    return folder


def test_answers_of_several_sweeps_have_the_direction_of_the_first(tmp_path: Path, capsys, monkeypatch):
    folders = [sweep(tmp_path / "a", 0.05, "transposed"), sweep(tmp_path / "b", 0.05, "bilinear"),
               sweep(tmp_path / "c", 0.0, "transposed")]  # fmt: skip
    table = answer_table([analyze(folder) for folder in folders])
    assert table.columns == ["first vs second", "a", "b", "c"]
    ((name, *cells), total) = table.rows
    assert name == "model.up: bilinear vs transposed"
    assert cells[0].startswith("better 0.04") and cells[1] == cells[0] and cells[2].startswith("practically equal")
    assert total == ["all", "1 better", "1 better", "1 practically equal"]
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, folders)])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [str(folder / "report.html") for folder in folders]
    assert lines[3].startswith("| first vs second | a | b | c |") and all(line.count("|") == 5 for line in lines[3:])


def test_sweeps_on_the_same_data_share_a_column_unless_they_ask_the_same():
    up = Answer("model.up", "nearest", "transposed", "worse", -0.02, -0.03, -0.01, 12)
    down = Answer("model.down", "avg", "max", "undecided", 0.0, -0.02, 0.02, 12)
    turned = replace(up, first="transposed", second="nearest", verdict="better", difference=0.01, low=0.005, high=0.015)
    table = tabulate_answers([("a", "cells", [up]), ("b", "cells", [down]), ("c", "roads", [turned]), ("d", "x", [])])
    assert table.columns == ["first vs second", "cells", "roads", "x"]
    assert table.rows == [
        ["model.up: nearest vs transposed", str(up), "worse -0.0100 (-0.0150 to -0.0050)", NONE],
        ["model.down: avg vs max", "undecided 0.0000 (-0.0200 to 0.0200)", NONE, NONE],
        ["all", "1 worse, 1 undecided", "1 worse", ""],
    ]  # fmt: skip
    again = tabulate_answers([("a", "cells", [up]), ("b", "cells", [down]), ("c", "cells", [turned])])
    assert again.columns == ["first vs second", "a", "b", "c"]
