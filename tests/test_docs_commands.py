"""The commands in the docs: every config is composed, and commands that need no other data are run at a small size."""

import re
import shlex
import shutil
import sys
from argparse import ArgumentParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, VOLUMES, config, script
from folders import save
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from processes import run as run_command
from scipy import ndimage
from sweeps import leave_run, metrics_of
from test_docs import PAGES

from unet.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is")

COMMAND = re.compile(r"python ((?:train|scripts/\w+)\.py)((?:\\\n|[^\n`#&;|<])*)")
SMALL = [
    *("model.width=4", "data.samples_per_epoch=8", "data.batch_size=2", "data.num_workers=0"),
    *("trainer.max_epochs=1", "trainer.limit_val_batches=2", "trainer.limit_test_batches=1"),
    *("trainer.precision=32-true", "trainer.accelerator=cpu", "threads=1"),
    *("diagnostics=false", "num_logged_images=0", "feature_maps=0"),
]
"""Overrides for a run of seconds, except the keys that a command itself sets."""
CELLS = "data.source.values={0: background, 255: cell}"
ENCODER = "mobilenetv3_small_050,pretrained:encoder.pth"
"""In place of pretrained weights, which timm would download."""
DEFAULTS = OmegaConf.load(ROOT / "configs" / "train.yaml")
RUN = [f"scripts/{name}.py" for name in ("check_data", "describe", "predict", "evaluate", "export", "report", "curve")]
COMPOSED = {"scripts/baseline.py": "train", "scripts/demo.py": "demo"}
"""Scripts with a Hydra config that are not run here, and the names of their configs."""


def commands() -> list[tuple[str, ...]]:
    """Return every command once: the file, then its arguments; ``$gpu`` of a loop is 0."""
    result = {}
    for page in PAGES:
        if page.parent.parent.name == "results":
            continue  # lists of runs
        for name, args in COMMAND.findall(page.read_text(encoding="utf-8")):
            if "-sc" in args.split():
                continue  # shell completion, see test_completion.py
            words = shlex.split(args.replace("\\\n", " ").replace("$gpu", "0"))
            result[name, *(word for word in words if word != "...")] = None
    return list(result)


def commands_of(*names: str) -> list:
    return [pytest.param(command, id=" ".join(command)) for command in commands() if command[0] in names]


def first_job(args: list[str]) -> list[str]:
    """Return the overrides of a training, or of the first job of a sweep."""
    # The intervals of a search have no first value.
    overrides = [arg for arg in args if not arg.startswith("-") and arg != "job" and "interval(" not in arg]
    for name in [arg.partition("=")[2] for arg in overrides if arg.startswith("sweep=")]:
        params = OmegaConf.load(ROOT / "configs" / "sweep" / f"{name}.yaml").hydra.sweeper.params
        overrides = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    return [override for override in jobs[0] if not override.startswith(("hydra/", "hydra."))]


def has_placeholders(args: list[str]) -> bool:
    """Return whether a command has placeholders such as ``data=NAME`` or ``ckpt_path=outputs/.../last.ckpt``."""
    return any(arg.isupper() or arg.endswith("=NAME") or "..." in arg for arg in args)


def runnable(*names: str) -> list:
    """Return the commands without placeholders; ``ckpt=outputs/RUN/...`` exists in :func:`workspace`."""

    def runs(command: tuple[str, ...]) -> bool:
        args = [arg for arg in command if not arg.startswith("ckpt=")]
        return not has_placeholders(args) and not any(arg.endswith("=PATH") for arg in args)

    return [param for param in commands_of(*names) if runs(param.values[0])]


@pytest.mark.parametrize("command", commands_of("train.py"))
def test_every_training_in_the_docs_composes(command):
    args = list(command[1:])
    if not has_placeholders([arg for arg in args if not arg.startswith("hydra.")]):
        config(*first_job(args))


def test_ranges_are_quoted_where_a_shell_would_read_their_parentheses():
    """Also in the messages of the package and the comments of the configs, which users paste into a shell."""
    folders = [ROOT / name for name in ("unet", "scripts", "configs", "docs")]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".yaml", ".md", ".jinja")
    ]
    unquoted = re.compile(r"(?<!['\w.])[\w.]+=range\(")
    lines = [line for path in [*files, ROOT / "README.md"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if unquoted.search(line) and "``" not in line] == []


def test_every_script_in_the_docs_exists():
    assert [name for name, *_ in commands() if not (ROOT / name).is_file()] == []


PARSED = sorted({name for name, *_ in commands()} - {"train.py", *RUN})


@pytest.mark.parametrize("command", commands_of(*PARSED))
def test_scripts_that_are_not_run_accept_their_arguments(command, monkeypatch):
    """Only parse them: what these scripts write or time is tested elsewhere."""
    name, *args = command
    if name in COMPOSED:
        if not has_placeholders(args):
            config(*args, name=COMPOSED[name])
        return
    parse_args = ArgumentParser.parse_args

    def parse_and_exit(parser: ArgumentParser, *values: list[str] | None) -> None:
        parse_args(parser, *values)
        raise SystemExit(0)

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_and_exit)
    monkeypatch.setattr(sys, "argv", [name, *args])
    with pytest.raises(SystemExit) as end:
        script(Path(name).stem).main()
    assert end.value.code == 0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the files of the docs' commands: ``my_data`` with masks of 0 and 255, photos, scans, a run and a sweep."""
    root = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    for number in range(12):
        height, width = rng.integers(100, 160, 2)
        cells = ndimage.gaussian_filter(rng.normal(size=(height, width)), 5) > 0.03
        image = np.clip(40 + 120 * cells + rng.normal(0, 10, cells.shape), 0, 255).astype(np.uint8)
        save(root / "my_data" / "images" / f"{number}.png", image)
        save(root / "my_data" / "masks" / f"{number}.png", 255 * cells.astype(np.uint8))
        if number < 2:
            save(root / "photos" / f"{number}.png", image)
            save(root / "scans" / f"{number}.tif", image)
    shutil.copytree(root / "my_data", root / "elsewhere")
    run = config("data=folder", f"data.root={root / 'my_data'}", CELLS, "data.crop.picture=64", "model.depth=2", *SMALL)
    train(run, root / "outputs" / "RUN")
    (root / "outputs" / "RUN" / "config.yaml").write_text(OmegaConf.to_yaml(run, resolve=True))
    for down, lr, seed in product(("max", "avg"), (0.001, 0.003), range(3)):
        overrides = {"model.down": down, "optim.lr": lr, "seed": seed}
        leave_run(root / "outputs" / "SWEEP", overrides, metrics_of(0.5, seed) | {"best/val_miou": 0.5})
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), root / "encoder.pth")
    return root


def changes_training(override: str) -> bool:
    """Return whether an override does more than choose a seed, name a sweep's questions, or repeat a default."""
    key, _, value = override.partition("=")
    return key not in ("seed", "threads", "questions", "sweep") and str(OmegaConf.select(DEFAULTS, key)) != value


def trainings() -> list[tuple[str, ...]]:
    """Return the overrides of every training, or of a sweep's first job, on one device and with data at hand.

    Trainings that differ only as in :func:`changes_training` are one.
    """
    result = {}
    for name, *args in commands():
        overrides = tuple(first_job(args)) if name == "train.py" else ("experiment=",)
        data = next((word.removeprefix("data=") for word in overrides if word.startswith("data=")), "blue_marble")
        available = data in ("blue_marble", "blue_marble_lines", "land_cover", "folder", *["icbm152"] * VOLUMES)
        excluded = any(word.startswith(("experiment=", "trainer.devices=")) for word in overrides)
        if available and not excluded and not has_placeholders(args):
            result[tuple(filter(changes_training, overrides))] = None
    return list(result)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", trainings(), ids=" ".join)
def test_trainings_in_the_docs_train(overrides, workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace)
    overrides = [word.replace("resnet34,pretrained:True", ENCODER) for word in overrides]
    settings = config(*overrides, *(word for word in SMALL if word.partition("=")[0] not in "".join(overrides)))
    metrics = train(settings, tmp_path / "run")
    assert 0 <= metrics.get("test/miou", metrics.get("val/miou")) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("command", runnable(*RUN))
def test_scripts_in_the_docs_run(command, workspace, tmp_path):
    name, *args = command
    for path in workspace.iterdir():
        (tmp_path / path.name).symlink_to(path)  # commands do not share their output
    result = run_command([str(ROOT / name), *args], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout
