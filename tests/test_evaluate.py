"""Evaluation of a checkpoint: equal to its training's, on every split; errors for data that does not match."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, config
from folders import sentence
from omegaconf import OmegaConf

from unet.commands import evaluate
from unet.errors import UserError
from unet.training.build import build_data
from unet.training.evaluate import evaluate_checkpoint, evaluation_config
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*tree.*:FutureWarning",
)


@pytest.fixture(scope="module")
def run(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run with diagnostics, weighted classes and evaluation tiles."""
    folder = tmp_path_factory.mktemp("run")
    overrides = ["data.class_weights=median_frequency", "data.eval_tile=[32,32]", "loss.logit_adjustment=true"]
    composed = config(
        "data=isbi2012",
        f"data.root={stack}",
        *TINY,
        "diagnostics=true",
        "optim.lr=0.02",
        "trainer.max_epochs=6",
        *overrides,
    )
    train(composed, folder)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(composed, resolve=True))
    return folder


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def test_the_metrics_are_exactly_those_of_the_training(run: Path, tmp_path: Path):
    expected = metrics_of(run)
    metrics = evaluate_checkpoint(best(run), out=tmp_path / "scores").metrics
    names = [name for name in expected if name.startswith(("test/", "train/"))]
    assert {"test/miou", "test/loss", "test/boundary/iou", "test/shift/agreement", "train/miou"} <= set(names)
    assert {name: metrics[name] for name in names} == {name: expected[name] for name in names}
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text()) == metrics
    assert (tmp_path / "scores" / "confusions.npz").read_bytes() == (run / "confusions.npz").read_bytes()
    with pytest.raises(UserError, match=r"metrics\.json: the file exists already"):
        evaluate_checkpoint(best(run), out=tmp_path / "scores")


def test_several_checkpoints_are_evaluated_as_one(run: Path, capsys: pytest.CaptureFixture):
    expected = metrics_of(run)
    metrics = evaluate_checkpoint([best(run), best(run)], with_diagnostics=False).metrics
    assert metrics["test/miou"] == pytest.approx(expected["test/miou"], abs=1e-3)
    assert metrics["checkpoint"] == f"{best(run)}, {best(run)}" and "checkpoint/epoch" not in metrics
    assert evaluate_checkpoint([best(run)] * 2, with_diagnostics=True).metrics["test/boundary/iou"] > 0
    assert "information skipped: several networks have no levels in common" in capsys.readouterr().out


def test_other_splits_are_evaluated_without_augmentation(run: Path, tmp_path: Path):
    expected = metrics_of(run)
    val = evaluate_checkpoint(best(run), split="val", out=tmp_path / "val", with_diagnostics=False).metrics
    assert (tmp_path / "val" / "confusions.npz").is_file()
    assert val["val/miou"] == pytest.approx(expected["best/val_miou"], abs=1e-7)
    assert not [name for name in val if name.startswith(("test/", "train/"))]
    train_split = evaluate_checkpoint(best(run), split="train", with_diagnostics=False).metrics
    assert train_split["train/miou"] > 0.5
    assert train_split["train/iou/cell"] > 0.5 and "val/miou" not in train_split


def test_an_older_checkpoint_with_a_smaller_description_gives_the_same_metrics(run: Path, tmp_path: Path):
    checkpoint = torch.load(best(run), weights_only=True)
    added = ("class_weights", "eval_transforms", "eval_tile", "eval_overlap", "field")
    assert set(added) <= set(checkpoint["description"])
    for key in added:
        del checkpoint["description"][key]
    for key in checkpoint.keys() - {"description", "state_dict"}:  # one that holds only its network, too
        del checkpoint[key]
    checkpoint["description"]["range"] = [0.0, 60_000.0]
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, best(tmp_path))
    shutil.copy(run / "config.yaml", tmp_path)
    result = evaluate_checkpoint(best(tmp_path), with_diagnostics=False)
    for name in ("test/miou", "test/loss"):
        assert result.metrics[name] == metrics_of(run)[name]
    assert "checkpoint/epoch" not in result.metrics
    (doubt,) = result.doubts
    assert doubt.startswith("uint8 values from") and "with values from 0 to 60000" in doubt


def test_the_data_can_be_moved_or_replaced(run: Path, stack: Path, tmp_path: Path):
    shutil.copytree(stack, tmp_path / "moved")
    metrics = evaluate_checkpoint(best(run), [f"data.root={tmp_path / 'moved'}"], with_diagnostics=False).metrics
    assert metrics["test/miou"] == metrics_of(run)["test/miou"]
    config = evaluation_config(best(run), [f"data.root={tmp_path / 'moved'}", "data.eval_batch_size=2"])
    assert config.data.source.root == str(tmp_path / "moved") and config.data.eval_batch_size == 2
    other = evaluation_config(best(run), ["data=blue_marble", "data.source.gamma=1"])
    assert other.data.name == "blue_marble" and other.data.source.gamma == 1 and other.model.width == 4
    folder = tmp_path / "mine"
    for part, name in (("images", "image"), ("masks", "label")):
        shutil.copytree(stack / name, folder / part)
    values = ["data=folder", f"data.root={folder}", "data.source.values={0: membrane, 255: cell}"]
    values += ["data.source.classes=[membrane,cell]"]
    metrics = evaluate_checkpoint(best(run), values, split="val", with_diagnostics=False).metrics
    assert 0.3 < metrics["val/miou"] <= 1 and metrics["data"] == "folder"


@pytest.fixture
def mine(stack: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """Return a folder of images and masks, and the overrides with which it is evaluated."""
    for part, name in (("images", "image"), ("masks", "label")):
        shutil.copytree(stack / name, tmp_path / "mine" / part)
    overrides = ["data.source.values={0: membrane, 255: cell}", "data.source.classes=[membrane,cell]"]
    return tmp_path / "mine", ["data=folder", f"data.root={tmp_path / 'mine'}", *overrides]


def test_another_folder_is_evaluated_whole_unless_a_split_is_named(run: Path, mine: tuple[Path, list[str]]):
    folder, overrides = mine
    result = evaluate_checkpoint(best(run), overrides, with_diagnostics=False)
    assert (result.split, result.metrics["all/images"]) == ("all", 10) and 0.3 < result.metrics["all/miou"] <= 1
    for split, count in (("train", 7), ("val", 2), ("test", 1)):
        metrics = evaluate_checkpoint(best(run), overrides, split=split, with_diagnostics=False).metrics
        assert metrics[f"{split}/images"] == count
    with pytest.raises(UserError, match=r"valid: train, val, test, all"):
        evaluate_checkpoint(best(run), overrides, split="al", with_diagnostics=False)
    for path in [*folder.glob("*/[1-9].png")]:
        path.unlink()
    overrides.append("data.source.splits.test=gone.txt")
    assert evaluate_checkpoint(best(run), overrides, with_diagnostics=True).metrics["all/images"] == 1


def test_folders_of_splits_are_evaluated_together(run: Path, mine: tuple[Path, list[str]]):
    folder, overrides = mine
    for split, numbers in (("train", "0123"), ("val", "45"), ("test", "6789")):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
            for number in numbers:
                (folder / part / f"{number}.png").rename(folder / split / part / f"{number}.png")
    for part in ("images", "masks"):
        (folder / part).rmdir()
    assert evaluate_checkpoint(best(run), overrides, with_diagnostics=False).metrics["all/images"] == 10
    assert evaluate_checkpoint(best(run), overrides, "test", with_diagnostics=False).metrics["test/images"] == 4


def test_scores_of_images_that_were_trained_on_have_a_warning(run: Path, mine: tuple[Path, list[str]], stack: Path):
    folder, overrides = mine
    assert evaluate_checkpoint(best(run), split="all", with_diagnostics=False).warning
    checkpoint = torch.load(best(run), weights_only=True)
    config = evaluation_config(best(run), overrides)
    data = build_data(config)
    data.scan()
    checkpoint["description"]["mean"], checkpoint["description"]["std"] = data.samples["train"].statistics()
    (folder / "run" / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, best(folder / "run"))
    OmegaConf.save(OmegaConf.load(run / "config.yaml"), folder / "run" / "config.yaml")
    warning = evaluate_checkpoint(best(folder / "run"), overrides, with_diagnostics=False).warning
    assert warning.startswith("the network was trained on some of these images")
    assert evaluate_checkpoint(best(run), overrides, with_diagnostics=False).warning == "", "other statistics"


def test_mismatches_are_refused_in_one_line(run: Path, stack: Path, tmp_path: Path):
    def refusal(*args: Any, path: Path | None = None, **kwargs: Any) -> pytest.ExceptionInfo:
        with pytest.raises(UserError) as error:
            evaluate_checkpoint(path or best(run), *args, **kwargs)
        return error

    (tmp_path / "file").write_text("")
    sentence(refusal(out=tmp_path / "file" / "scores"), "cannot be made", "choose another folder")
    sentence(refusal(split="tset"), "split=tset", "did you mean test", "train, val, test")
    sentence(refusal(["data.rot=x"]), "data.rot: no such key", "did you mean data.root")
    sentence(refusal([f"data.root={tmp_path / 'gone'}"]), "gone")
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(best(run), best(tmp_path))
    sentence(refusal(path=best(tmp_path)), "config.yaml: no such file", "data=NAME")
    for part, name in (("images", "image"), ("masks", "label")):
        shutil.copytree(stack / name, tmp_path / part)
    values = [f"data.root={tmp_path}", "data.source.values={0: wall, 255: cell}", "data.source.classes=[wall,cell]"]
    sentence(refusal(["data=folder", *values]), "wall, cell", "membrane, cell", "the same, in the same order")


@pytest.mark.parametrize("key", ["data", "data.source", "data.source.root", "data.eval_transforms"])
@pytest.mark.parametrize("target", ["os.mkdir", "unet.data.module.os.mkdir", "builtins.exec"])
def test_a_config_beside_a_checkpoint_builds_data_sets_and_transforms_alone(run: Path, tmp_path, key, target):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(best(run), best(tmp_path))
    config = OmegaConf.load(run / "config.yaml")
    code = {"_target_": target, "_args_": [f"__import__('os').mkdir('{tmp_path / 'ran'}')"]}
    if target != "builtins.exec":
        code["_args_"] = [str(tmp_path / "ran")]
    OmegaConf.update(config, key, [{"_target_": "albumentations.D4", "p": code}] if "transforms" in key else code)
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(UserError) as error:
        evaluate_checkpoint(best(tmp_path), with_diagnostics=False)
    sentence(error, f"_target_={target}: expected a data set of unet.data or a transform of albumentations")
    assert not (tmp_path / "ran").exists()


def test_the_command_prints_the_scores(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.argv", ["evaluate.py", f"ckpt='{best(run)}'", "diagnostics=false"])
    evaluate.main()
    output = capsys.readouterr().out
    assert f"{metrics_of(run)['test/iou/cell']:.4f}" in output and "test metrics of 2 images, " in output
    assert metrics_of(run)["test/images"] == 2
