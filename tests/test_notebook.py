"""docs/tour.ipynb runs from its first cell to its last in an empty folder, here with shorter trainings."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "tour.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour_runs(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("trainer.max_epochs=4", "trainer.max_epochs=1 data.samples_per_epoch=64")
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "outputs" / "tour" / "report.html").is_file()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)


def test_the_tour_is_stored_with_its_results_and_without_paths_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "/tmp/" not in text and "/root" not in text and "/home/" not in text
    assert NOTEBOOK.stat().st_size < 500_000
