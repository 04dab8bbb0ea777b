"""Published runs: weights as safetensors, a model card, and the network that comes with the package."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, config
from folders import noise, sentence
from omegaconf import OmegaConf
from safetensors.torch import save_file

from unet import load
from unet.commands import evaluate
from unet.errors import UserError
from unet.io.atomic import sha256
from unet.io.default_weights import DEFAULT_WEIGHTS, checkpoint_path
from unet.runs.run import record_init
from unet.runs.run_names import identity_config
from unet.training.evaluate import evaluate_checkpoint
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning", "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*tree.*:FutureWarning"
)


@pytest.fixture(scope="module")
def publish() -> Any:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "scripts" / "maintain" / "publish.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.publish


@pytest.fixture(scope="module")
def run(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    composed = config("data=isbi2012", f"data.root={stack}", *TINY, "trainer.max_epochs=3", "optim.lr=0.02")
    train(composed, folder)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(composed, resolve=True))
    return folder


def test_published_weights_predict_and_score_as_the_checkpoint(publish, run: Path, stack: Path, tmp_path: Path):
    path = publish(run, tmp_path / "published", torch.float32)
    best, image = load(run / "checkpoints" / "best.ckpt"), noise(48, 48, 1)
    model = load(path)
    assert model.description == json.loads(json.dumps(best.description))
    for first, second in zip(*(net.predict(image, probabilities=True) for net in (best, model)), strict=True):
        assert np.array_equal(first, second)
    metrics = json.loads((run / "metrics.json").read_text())
    result = evaluate_checkpoint(path, [f"data.root={stack}"], with_diagnostics=False)
    assert result.metrics["test/miou"] == metrics["test/miou"]
    card = (tmp_path / "published" / "README.md").read_text()
    assert f"| mean | {metrics['test/miou']:.4f} |" in card and "membrane" in card
    for file in (tmp_path / "published").glob("*.*"):
        assert str(stack) not in file.read_text(), "no path of this machine"


def test_half_the_size_in_bfloat16(publish, run: Path, tmp_path: Path):
    full, half = (publish(run, tmp_path / str(dtype), dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.stat().st_size < 0.75 * full.stat().st_size
    weights, rounded = (dict(load(path).named_parameters()) for path in (full, half))
    assert all(torch.equal(weights[name].bfloat16().float(), rounded[name]) for name in weights)


def test_a_published_run_can_be_the_start_of_a_training(publish, run: Path, stack: Path, tmp_path: Path, capsys):
    path = publish(run, tmp_path / "published", torch.float32)
    composed = config("data=isbi2012", f"data.root={stack}", *TINY, "trainer.max_epochs=1", f"init={path}")
    train(composed, tmp_path / "new")
    found = re.search(r"init: (\d+) of (\d+) tensors from", capsys.readouterr().out)
    assert found and found[1] == found[2]


def test_publishing_overwrites_nothing_and_needs_a_finished_run(publish, run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="exists already; choose another folder"):
        publish(run, tmp_path, torch.float32)
    with pytest.raises(UserError, match="expected the folder of a finished run"):
        publish(tmp_path, tmp_path / "new", torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    for content, words in ((None, "no such file"), (b"", "damaged"), (b"\xff" * 99, "damaged")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(path)
        sentence(error, str(path), words, "expected the weights that scripts/maintain/publish.py writes")
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(UserError, match="has no description of its network"):
        load(path)
    save_file({"x": torch.ones(2)}, path, {"description": json.dumps({"model": {}})})
    with pytest.raises(UserError, match="its weights do not fit its own description"):
        load(path)


def test_the_network_of_the_package_scores_what_its_card_says(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["evaluate", "ckpt=default", "diagnostics=false"])
    evaluate.main()
    printed = capsys.readouterr().out
    card = (DEFAULT_WEIGHTS.parents[1] / "README.md").read_text()
    for name in ("ocean", "land", "lake", "mean"):
        (score,) = re.findall(rf"\| {name} \| ([\d.]+) \|", card)
        assert re.search(rf"│ {name} +│ {score}", printed), (name, score, printed)
    assert load("default").classes == ["ocean", "land", "lake"]


def test_a_file_named_default_comes_first(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path("default") == DEFAULT_WEIGHTS
    shutil.copy(DEFAULT_WEIGHTS, "default")
    assert checkpoint_path("default") == Path("default")


def test_a_training_from_the_network_of_the_package_resumes_with_the_same_command(monkeypatch, stack, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["data=isbi2012", f"data.root={stack}", "init=default"]
    started = config(*command)
    record_init(started)  # as a run does before it writes its config
    assert identity_config(started) == identity_config(config(*command))
    assert started.init == "default" and started.init_sha256 == sha256(DEFAULT_WEIGHTS)
