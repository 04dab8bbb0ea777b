"""Shell completion, installed as the README says, in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

INSTALL = 'eval "$(python train.py -sc install=bash)"'


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_keys_and_choices():
    assert INSTALL in (ROOT / "README.md").read_text(encoding="utf-8")
    typed = {"model.dr": "model.dropout=", "data=": "data=camvid", "experiment=cam": "experiment=camvid_cpu"}
    lines = [INSTALL]
    for word in typed:
        line = f"python train.py {word}"
        lines += [f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD=2"]
        lines += ["hydra_bash_completion", 'echo "${COMPREPLY[@]}"']
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == len(typed), done.stderr
    assert [word for line, word in zip(lines, typed.values(), strict=True) if word not in line.split()] == []
