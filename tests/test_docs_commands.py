"""Every command on the pages: a training's is composed, and what needs nothing from elsewhere is run, made small."""

import re
import shlex
import shutil
import sys
from argparse import ArgumentParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
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
    "model.width=4",
    "data.samples_per_epoch=8",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=1",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
    "threads=1",
    "diagnostics=false",
    "num_logged_images=0",
    "feature_maps=0",
]
"""Beside what a page's command chooses: a run of seconds. No key of it is in a command that is run."""
CELLS = "data.source.values={0: background, 255: cell}"
RUN = [f"scripts/{name}.py" for name in ("check_data", "describe", "predict", "evaluate", "export", "report")]
COMPOSED = {"scripts/baseline.py": "train", "scripts/demo.py": "demo"}
"""Scripts that take Hydra's overrides and are not run here, and their configs."""


def commands() -> list[tuple[str, ...]]:
    """Every command, once: the file, then its arguments; ``$gpu`` of a loop is 0."""
    found = {}
    for page in PAGES:
        if page.parent.parent.name == "results":
            continue  # lists of runs
        for name, given in COMMAND.findall(page.read_text(encoding="utf-8")):
            if "-sc" in given.split():
                continue  # shell completion, see test_completion.py
            words = shlex.split(given.replace("\\\n", " ").replace("$gpu", "0"))
            found[name, *(word for word in words if word != "...")] = None
    return list(found)


def called(*names: str) -> list:
    chosen = [command for command in commands() if command[0] in names]
    return [pytest.param(command, id=" ".join(command)) for command in chosen]


def first_job(words: list[str]) -> list[str]:
    """The overrides of a training, of a sweep those of its first job."""
    overrides = [word for word in words if not word.startswith("-") and word != "job"]
    (named,) = [word.partition("=")[2] for word in overrides if word.startswith("sweep=")] or [None]
    if named:
        params = OmegaConf.load(ROOT / "configs" / "sweep" / f"{named}.yaml").hydra.sweeper.params
        overrides = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    return [word for word in jobs[0] if not word.startswith(("hydra/", "hydra."))]


def placeholders(words: list[str]) -> bool:
    """Whether a command shows only the form of one: ``data=NAME``, ``ckpt_path=outputs/.../last.ckpt``."""
    return any(word.isupper() or word.endswith("=NAME") or "..." in word for word in words)


def runnable(*names: str) -> list:
    """The commands that show no mere form, as ``data.root=PATH`` does; ``ckpt=outputs/RUN/...`` is in :func:`world`."""

    def form(command: tuple[str, ...]) -> bool:
        words = [word for word in command if not word.startswith("ckpt=")]
        return placeholders(words) or any(word.endswith("=PATH") for word in words)

    return [one for one in called(*names) if not form(one.values[0])]


@pytest.mark.parametrize("command", called("train.py"))
def test_every_training_on_the_pages_composes(command):
    words = list(command[1:])
    if not placeholders([word for word in words if not word.startswith("hydra.")]):
        config(*first_job(words))


def test_every_script_on_the_pages_exists():
    assert [name for name, *_ in commands() if not (ROOT / name).is_file()] == []


OTHERS = sorted({name for name, *_ in commands()} - {"train.py", *RUN})


@pytest.mark.parametrize("command", called(*OTHERS))
def test_scripts_that_are_not_run_here_accept_their_arguments(command, monkeypatch):
    """Only parse them: what these scripts write or time is tested elsewhere."""
    name, *words = command
    if name in COMPOSED:
        if not placeholders(words):
            config(*words, name=COMPOSED[name])
        return
    parse_args = ArgumentParser.parse_args

    def parse_and_exit(parser: ArgumentParser, *arguments: list[str] | None) -> None:
        parse_args(parser, *arguments)
        raise SystemExit(0)

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_and_exit)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as end:
        script(Path(name).stem).main()
    assert end.value.code == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: ``my_data`` with masks of 0 and 255, photos, scans, a run and a sweep."""
    root = tmp_path_factory.mktemp("world")
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
    return root


def trainings() -> list[tuple[str, ...]]:
    """The overrides of every training that needs one device and no data fetched by hand; of a sweep its first job's."""
    found = {}
    for name, *words in commands():
        overrides = tuple(first_job(words)) if name == "train.py" else ("experiment=",)
        data = next((word.removeprefix("data=") for word in overrides if word.startswith("data=")), "blue_marble")
        at_hand = data in ("blue_marble", "blue_marble_lines", "folder", *["icbm152"] * VOLUMES)
        elsewhere = any(word.startswith(("experiment=", "trainer.devices=")) for word in overrides)
        if at_hand and not elsewhere and not placeholders(words):
            found[overrides] = None
    return list(found)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", trainings(), ids=" ".join)
def test_trainings_on_the_pages_train(overrides, world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    chosen = config(*overrides, *(word for word in SMALL if word.partition("=")[0] not in "".join(overrides)))
    metrics = train(chosen, tmp_path / "run")
    assert 0 <= metrics["test/miou"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("command", runnable(*RUN))
def test_scripts_on_the_pages_run(command, world, tmp_path):
    name, *words = command
    for part in world.iterdir():
        (tmp_path / part.name).symlink_to(part)  # what a command writes is not there for the next
    done = run_command([str(ROOT / name), *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
