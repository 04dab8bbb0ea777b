"""Operators and losses from files outside of the repository (plugins)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import torch
from conftest import ROOT, TINY
from folders import folder_of

from unet import DOWN, UNet, load
from unet.errors import UserError
from unet.inference.checkpoint import recorded_plugins
from unet.io import plugins
from unet.io.plugins import load_plugins, loaded_plugins, missing_plugins
from unet.task.losses import LOSSES, make_loss

PLUGIN = '''
import torch
from torch import nn

from unet import DOWN
from unet.task.losses import LOSSES


@DOWN.register("first_value")
class FirstValueDown(nn.Module):
    """The first value of every window.

    Source: a test.
    """

    def __init__(self, channels, spatial_dims, stride):
        super().__init__()
        self.step = tuple(slice(None, None, r) for r in stride)

    def forward(self, x):
        return x[(..., *self.step)].contiguous()


def squared(logits, target, weight, *, factor: float = 1.0):
    return factor * logits.square().mean()


LOSSES["squared"] = squared
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(plugins, "_loaded", dict(plugins._loaded))
    path = tmp_path / "my_test_ops.py"
    path.write_text(PLUGIN)
    yield path
    DOWN._classes.pop("first_value", None)
    LOSSES.pop("squared", None)
    sys.modules.pop("my_test_ops", None)


def test_a_plugin_registers_an_operator_and_a_loss(plugin: Path):
    load_plugins([str(plugin)])
    load_plugins([str(plugin)])  # once
    x = torch.arange(16.0).view(1, 1, 4, 4)
    down = DOWN.build("first_value", {}, channels=1, spatial_dims=2, stride=(2, 2))
    assert down(x).flatten().tolist() == [0, 2, 8, 10]
    assert UNet(width=4, depth=2, down="first_value")(torch.randn(1, 3, 40, 33)).shape == (1, 2, 40, 33)
    assert make_loss({"name": "squared", "factor": 2}, None)(torch.ones(1, 2, 2), torch.zeros(1, 2).long()) == 2
    assert len(loaded_plugins()[str(plugin)]) == 64


@pytest.mark.parametrize(
    "names, message",
    [
        (["missing.py"], "plugins: missing.py: no such file; expected a Python file, or the name of an installed"),
        (["no_such_package"], "plugins: no_such_package: ModuleNotFoundError: No module named"),
        (["json.py"], "there is a module 'json' already; rename the file"),
        (["wrong.py"], "plugins: wrong.py, line 3: ZeroDivisionError: division by zero; correct it"),
        (["broken.py"], "plugins: broken.py.*SyntaxError"),
        (["twice.py"], "twice.py, line 3: ValueError: down operator 'max' is registered twice"),
        ("ops.py", r"plugins: expected a list such as \[my_ops.py, my_package\], found 'ops.py'"),
        (5, r"plugins: expected a list .* found 5"),
        ([3], r"plugins: expected a list .* found \[3\]"),
    ],
)
def test_an_invalid_plugin_gets_a_message(names, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("json.py").touch()
    Path("wrong.py").write_text("\n\n1 / 0\n")
    Path("broken.py").write_text("def (\n")
    Path("twice.py").write_text("from unet import DOWN\n\nDOWN.register('max')(object)\n")
    with pytest.raises(UserError, match=message):
        load_plugins(names)
    assert not {"wrong", "broken", "twice"} & sys.modules.keys(), "it can be corrected and loaded"


def test_the_recorded_plugins_of_a_damaged_checkpoint_are_none():
    assert recorded_plugins({"plugins": {"a.py": "12"}}) == {"a.py": "12"}
    for damaged in (None, 3, {}, {"plugins": 3}, {"plugins": ["a.py"]}):
        assert recorded_plugins(damaged) == {}


def test_a_plugin_may_have_moved(plugin: Path):
    load_plugins([str(plugin)])
    assert missing_plugins({"elsewhere/my_test_ops.py": "", "other.py": ""}) == ["other.py"]


@pytest.mark.slow
def test_a_run_with_a_plugin_trains_in_a_sweep_and_its_checkpoint_loads_with_the_plugin_alone(plugin: Path):
    root, data = plugin.parent, folder_of(plugin.parent / "data", [f"p{number}" for number in range(8)], (40, 36))
    train, options = [str(ROOT / "train.py")], [*TINY, "data=folder", f"data.root={data}", "data.source.classes=[a,b]"]
    sweep = ["model.down=first_value,max", "plugins=[my_test_ops.py]", "loss.name=[cross_entropy,squared]"]
    result = processes.run([*train, "-m", *options, *sweep, "hydra.sweep.dir=sweep"], root)
    assert result.returncode == 0, result.stderr
    (ckpt,) = root.glob("sweep/*first_value*/checkpoints/best.ckpt")
    with pytest.raises(
        UserError, match=r"'first_value'.*its run had plugins=\[my_test_ops.py\]: add them, if you trust"
    ):
        load(ckpt)
    predict = [str(ROOT / "scripts" / "predict.py"), f"ckpt={ckpt}", f"input={data / 'images'}", "output=labels"]
    assert "plugins=[my_test_ops.py]" in processes.run(predict, root).stderr
    result = processes.run([*predict, "plugins=[my_test_ops.py]"], root)
    assert "Traceback" not in result.stderr and len([*(root / "labels").glob("*.png")]) == 8, result.stderr
    plugin.write_text(PLUGIN + "\n# another version\n")
    with pytest.warns(UserWarning, match="plugin my_test_ops.py has changed since it was trained"):
        load(ckpt, plugins=[str(plugin)])
    result = processes.run(
        [*train, *options, "plugins=[my_test_ops.py]", "model.down=first_valu", "hydra.run.dir=run"], root
    )
    assert result.returncode == 1 and "did you mean first_value?" in result.stderr
