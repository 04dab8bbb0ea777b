"""Bad input gets one clear sentence, or a right result: the tables of inputs.py and inputs_after.py, line by line."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from inputs import Input, outcome, row
from inputs_after import EVERY, entries

PAGE = (ROOT / "docs" / "bad_inputs.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:the bottleneck is")
@pytest.mark.parametrize(
    ("kind", "entry"), list(entries()), ids=lambda part: part.wrong if isinstance(part, Input) else part
)
def test_a_bad_input_gets_what_the_table_says(kind: str, entry: Input, tmp_path: Path):
    found = outcome(entry, tmp_path)
    assert found.status == entry.status and re.search(entry.gets, found.said), found
    assert "\n" not in found.said.rstrip("\n") and "Traceback" not in found.said and str(tmp_path) not in found.said
    assert row(entry, found) in PAGE, "python scripts/bad_inputs.py writes the page anew"
    assert not (tmp_path / "ran").exists() and not (tmp_path / ".." / "climbed").exists()


def test_the_page_has_a_line_for_every_input_and_no_other():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what is wrong")]
    assert len(lines) == len(list(entries())) >= 60
    assert [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")] == list(EVERY)
