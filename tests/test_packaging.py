"""The wheel works without the repository; a run records the commit of this repository only."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

import unet
from unet.io import provenance


@pytest.mark.slow
def test_the_wheel_has_the_configs_and_the_command(tmp_path: Path):
    (minimum,) = re.findall(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pytest.importorskip("setuptools", minversion=minimum)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("unet", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, timeout=240, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert f"-{unet.__version__}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    configs = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    installed = tmp_path / "site" / "unet"
    assert {path.relative_to(installed / "configs") for path in (installed / "configs").rglob("*.yaml")} == configs
    assert (installed / "py.typed").is_file() and (installed / "report" / "templates" / "page.html.jinja").is_file()
    (entry_points,) = (tmp_path / "site").glob("*.dist-info/entry_points.txt")
    assert "unet-lab = unet.__main__:main" in entry_points.read_text()
    (tmp_path / "empty").mkdir()
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from unet.__main__ import main; main()"
    command = [sys.executable, "-c", code, "train", "--cfg", "job", "model.down=strided"]
    done = subprocess.run(command, cwd=tmp_path / "empty", check=True, timeout=120, capture_output=True, text=True)
    assert "down: strided" in done.stdout


def test_an_installed_package_does_not_record_the_commit_of_a_surrounding_repository(tmp_path: Path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", provenance.commit())
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "site-packages")
    assert provenance.commit() == ""
