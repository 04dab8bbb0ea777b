"""Settings and fixtures of all tests: one thread, no network, the same random numbers every time."""

import copy
import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}  # before torch is loaded, for children as well

import hypothesis
import numpy as np
import pytest
import torch
from folders import folder_of
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

import unet.runs.cli  # noqa: F401  (registers the resolvers that the configs use)
from unet.io.plugins import load_plugins

ROOT = Path(__file__).resolve().parent.parent
VOLUMES = find_spec("nilearn") is not None and find_spec("nibabel") is not None
needs_volumes = pytest.mark.skipif(not VOLUMES, reason="needs nibabel and nilearn: pip install -e '.[volumes]'")
TINY = [
    "model.width=4",
    "model.depth=2",
    "model.dropout=0.1",
    "data.samples_per_epoch=16",
    "data.train_transforms=[{_target_: albumentations.RandomCrop, height: 32, width: 32},"
    "{_target_: albumentations.D4, p: 1}]",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "threads=1",
    "diagnostics=false",
    "num_logged_images=0",
    "feature_maps=0",
]
"""Overrides for a run of seconds: 3 epochs of 4 steps, with dropout so that the network draws random numbers too."""
IMAGES = ("num_logged_images=2", "feature_maps=2")  # after TINY, for a run that logs images

torch.set_num_threads(1)
load_plugins(os.environ.get("UNET_PLUGINS", "").split())  # their operators are tested as the project's own
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("lab")


def config(*overrides: str, name: str = "train") -> DictConfig:
    """Return the config that ``train.py`` composes from ``overrides``, or the config ``name`` of another command."""
    return copy.deepcopy(compose_once(name, overrides))


@functools.cache
def compose_once(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, list(overrides))


def script(name: str) -> ModuleType:
    """Import a file of scripts/ or scripts/maintain/ as a module."""
    path = next((ROOT / "scripts").rglob(f"{name}.py"))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_finish() -> None:
    """Exclude the objects of the libraries from garbage collection, which would take a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch and undo the settings of a training in this process, so that a test does the same after others."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def processes_end() -> Iterator[None]:
    """Stop the processes of tests/processes.py at the end of the session, where a test has used it."""
    yield
    if "processes" in sys.modules:
        sys.modules["processes"].stop_all()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a learnable data set in ISBI's layout: ten 48x48 slices of grey cells, masks of 0 and 255."""
    root = tmp_path_factory.mktemp("stack")
    for folder in ("image", "label"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for index in range(10):
        wall = (np.sin((x + 7 * index) / 4) + np.cos(y / 5) > 0.9).astype(np.uint8)
        grey = np.clip(200 - 120 * wall + rng.normal(0, 10, wall.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(root / "image" / f"{index}.png")
        Image.fromarray(255 * (1 - wall)).save(root / "label" / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def composed(stack: Path) -> Callable[..., DictConfig]:
    """Return a function from overrides to the config of a tiny network on :func:`stack`."""

    return functools.partial(config, "data=isbi2012", f"data.root={stack}", *TINY)


@pytest.fixture(scope="session")
def uninterrupted(
    composed: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Return a function from overrides to the folder and the metrics of an uninterrupted run, trained once."""
    from unet.training.train import train

    @functools.cache
    def run(*overrides: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("uninterrupted")
        return folder, train(composed(*overrides), folder)

    return run


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Write images 0 to 4 with lists: 0, 1 and 2 train, 3 and 4 val."""
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("3.png\n\n4\n")
    return folder_of(tmp_path, list("01234"))
