"""Invalid input gives an error message of one line, or a valid result."""

import re
from pathlib import Path

import pytest
from bad_inputs import Input
from bad_inputs_prediction import EVERY


@pytest.mark.filterwarnings("ignore:the bottleneck is")
@pytest.mark.parametrize(
    "entry", [pytest.param(entry, id=f"{kind}-{entry.name}") for kind, entries in EVERY.items() for entry in entries]
)
def test_a_bad_input_gives_an_error_message_of_one_line(entry: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    outcome = entry.run()
    assert outcome.status == entry.status and re.search(entry.pattern, outcome.message), outcome
    assert "\n" not in outcome.message.rstrip("\n")
    assert "Traceback" not in outcome.message and str(tmp_path) not in outcome.message
    assert not Path("ran").exists() and not (tmp_path.parent / "climbed").exists()
