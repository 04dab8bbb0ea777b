"""Runs that start from the weights of another one (init), and frozen parts of a network (optim.freeze)."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import config
from folders import sentence
from networks import checkpoint
from omegaconf import OmegaConf
from torch import Tensor

from unet import UNet, load
from unet.errors import UserError
from unet.report.arms import find_factors
from unet.report.read_sweep import read_sweep
from unet.runs.resume import config_diff
from unet.runs.run import execute
from unet.runs.run_names import identity_config, job_name
from unet.task.parameters import freeze_parts, parameter_groups
from unet.training.config_limits import validate_config
from unet.training.initial_weights import LoadedWeights, adapt_channels, leakage_warning, load_initial_weights
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:the bottleneck is:UserWarning", "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*tree.*:FutureWarning"
)

OLD = ["sky", "sea", "land"]
"""The classes of the checkpoints of tests/networks.py."""


def initialized(folder: Path, classes: list[str], **model: Any) -> tuple[UNet, dict[str, Tensor], LoadedWeights]:
    """Return a new network with the weights of a checkpoint, the tensors of the checkpoint, and what was loaded."""
    path = checkpoint(folder)
    net = UNet(**{"in_channels": 3, "num_classes": len(classes), "width": 4, "depth": 2, **model})
    source = load(path)
    return net, source.net.state_dict(), load_initial_weights(net, classes, source, str(path))


def test_a_first_convolution_keeps_the_response_to_equal_channels():
    grey = torch.tensor([[[[2.0]]]])
    torch.testing.assert_close(adapt_channels(grey, 3), torch.full((1, 3, 1, 1), 2 / 3))
    rgb = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    assert adapt_channels(rgb, 1).tolist() == [[[[6.0]]]], "three times the average"
    assert adapt_channels(rgb, 4).flatten().tolist() == [0.75, 1.5, 2.25, 0.75]
    assert adapt_channels(rgb, 2).flatten().tolist() == [1.5, 3.0]


def test_every_tensor_of_an_equal_network_is_loaded_with_the_statistics_of_batch_norm(tmp_path: Path):
    net, old, weights = initialized(tmp_path, OLD)
    assert {name for name, value in net.state_dict().items() if torch.equal(value, old[name])} == set(old)
    assert "stem.0.1.running_var" in weights.loaded and not weights.new
    assert weights.summary() == f"init: {len(old)} of {len(old)} tensors from {tmp_path / 'best.ckpt'}"


def test_the_head_of_other_classes_begins_anew_except_for_classes_of_the_same_name(tmp_path: Path):
    net, old, weights = initialized(tmp_path, ["cat", "dog"])
    assert list(weights.new) == ["head.weight", "head.bias"] and len(weights.loaded) == len(old) - 2
    assert weights.summary().endswith("; new: head.weight (3 -> 2 classes), head.bias")
    net, old, weights = initialized(tmp_path, ["land", "dog", "sky"])
    assert torch.equal(net.head.weight[[0, 2]], old["head.weight"][[2, 0]])
    assert torch.equal(net.head.bias[[0, 2]], old["head.bias"][[2, 0]]) and "head.bias" in weights.new
    assert not any(torch.equal(net.head.weight[1], row) for row in old["head.weight"])
    net, old, weights = initialized(tmp_path, ["land", "sky", "sea"])
    assert torch.equal(net.head.bias, old["head.bias"][[2, 0, 1]]) and not weights.new


def test_the_rest_begins_anew_and_is_named(tmp_path: Path):
    net, old, weights = initialized(tmp_path, OLD, in_channels=1, up="nearest", act="elu")
    torch.testing.assert_close(net.state_dict()["stem.0.0.weight"], old["stem.0.0.weight"].sum(1, keepdim=True))
    assert weights.adapted == "stem.0.0.weight (3 -> 1 channels)" and list(weights.new) == [
        "ups.0.conv.weight",
        "ups.1.conv.weight",
    ]
    assert "changed: model.act (relu -> elu)" in weights.summary() and weights.warning() == ""
    _, _, deeper = initialized(tmp_path, OLD, depth=4)
    assert "and" in deeper.summary() and deeper.warning().startswith("warning: init: only ")


def test_a_network_whose_weights_cannot_fit_is_refused(tmp_path: Path):
    with pytest.raises(UserError) as error:
        initialized(tmp_path, OLD, width=8)
    sentence(error, "model.width=4 ([4, 8, 16] by level)", "model.width=8")
    with pytest.raises(UserError) as error:
        initialized(tmp_path, OLD, spatial_dims=3)
    sentence(error, "its network has 2 spatial axes, the data have 3")


def test_a_network_on_the_meta_device_is_checked_alone(tmp_path: Path):
    source = load(checkpoint(tmp_path))
    with torch.device("meta"):
        net = UNet(in_channels=1, num_classes=2, width=4, depth=2)
    weights = load_initial_weights(net, ["sky", "cat"], source, "x")
    assert list(weights.new) == ["head.weight", "head.bias"] and net.head.weight.is_meta


def test_invalid_settings_are_refused_before_data_is_read():
    for override, message in {
        "optim.freeze=encoder": "a list of encoder, context, decoder, head, such as",
        "optim.freeze=[stem]": "a list of encoder",
        "optim.init_lr_factor=0.1": "without init there are no loaded weights",
        "optim.init_lr_factor=0": "a number above 0",
        "init=3": "null or a text",
    }.items():
        with pytest.raises(UserError, match=message):
            validate_config(config(override))
    with pytest.raises(UserError, match="no weight remains"):
        freeze_parts(UNet(width=4, depth=1), ["encoder", "decoder", "head"])


def test_parameters_are_grouped_by_what_was_loaded():
    net = UNet(width=4, depth=1)
    freeze_parts(net, ["decoder"])
    names = [name for name, _ in net.named_parameters()]
    old, new = parameter_groups(net, 0.5, 0.1, [name for name in names if not name.startswith("head")])
    assert new["lr"] == 0.5 and [list(value.shape) for value in new["params"]] == [[2, 4, 1, 1], [2]]
    loaded = [name for name in names if not name.startswith(("head", "ups", "decoder"))]
    assert old["lr"] == 0.05 and len(old["params"]) == len(loaded)


@pytest.fixture(scope="module")
def pretrained(uninterrupted: Callable[..., tuple[Path, dict]]) -> str:
    return str(uninterrupted("ema=0.5", "compile=false")[0] / "checkpoints" / "best.ckpt")


def test_frozen_tensors_are_equal_after_training_and_a_resumed_run_does_not_load_again(
    composed: Callable[..., Any], pretrained: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    source = shutil.copy(pretrained, tmp_path / "my best (1).ckpt")
    overrides = [f'init="{source}"', "optim.freeze=[encoder]", "optim.init_lr_factor=0.1", "optim.schedule=constant"]
    run = tmp_path / "run"
    run.mkdir()
    settings = composed(*overrides, "trainer.max_epochs=1")
    execute(train, settings, run, overrides)
    assert "tensors from" in capsys.readouterr().out
    old, last = load(pretrained).net.state_dict(), torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state = {name.removeprefix("net."): value for name, value in last["state_dict"].items()}
    frozen = [name for name in old if name.startswith(("stem", "downs", "encoder"))]
    assert frozen and all(torch.equal(state[name], old[name]) for name in frozen)
    assert not torch.equal(state["head.weight"], old["head.weight"]) and last["epoch"] == 0
    assert all(group["lr"] == pytest.approx(2e-4) for group in last["optimizer_states"][0]["param_groups"])
    assert settings.init_sha256 and list(config_diff(run, composed(*overrides, "trainer.max_epochs=1"))) == []
    Path(source).unlink()
    (run / "status.json").write_text('{"state": "interrupted"}')
    resumed = composed(*overrides, "trainer.max_epochs=2", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    execute(train, resumed, run, overrides)
    assert "tensors from" not in capsys.readouterr().out and resumed.init_sha256 == settings.init_sha256


def test_init_and_its_file_are_part_of_what_a_run_is(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"one")
    name = functools.partial(job_name, [f"init={path}"], ["init"])

    def folder() -> str:
        composed = config(f"init={path}")
        composed._set_flag("struct", False)
        composed.hydra = {"sweep": {"dir": str(tmp_path)}}
        return name(_root_=composed)

    first = folder()
    assert first.startswith("init-") and first == folder()
    path.write_bytes(b"another")
    assert folder() != first and identity_config(config(f"init={path}"))["init_sha256"]


def test_images_that_the_other_run_may_have_trained_on_have_a_warning(tmp_path: Path):
    data = ["data=folder", f"data.root={tmp_path}", "data.source.values={0: a, 1: b}"]
    OmegaConf.save(config(*data), tmp_path / "config.yaml", resolve=True)
    path = str(tmp_path / "checkpoints" / "best.ckpt")
    assert leakage_warning(path, config(*data)) == "" == leakage_warning(path, config("data=folder", "data.root=x"))
    for change in ("data.source.fold=1", "data.source.split_seed=1", "data.source.splits.test=null"):
        assert "its run divided the images of" in leakage_warning(path, config(*data, change))
    OmegaConf.save(config(), tmp_path / "config.yaml", resolve=True)
    assert "divided the images of blue_marble in" in leakage_warning(path, config("data.source.split_seed=1"))
    assert leakage_warning(str(tmp_path / "alone.ckpt"), config(*data, "data.source.fold=1")) == ""


def test_frozen_parts_are_a_factor_of_a_report(tmp_path: Path):
    from sweeps import leave_run, metrics_of

    for parts in (None, ["encoder"]):
        for seed in range(2):
            leave_run(tmp_path, {"optim.freeze": parts, "seed": seed}, metrics_of(0.5, seed))
    assert find_factors(read_sweep(tmp_path).runs)[0] == ["optim.freeze"]
