"""A network taken apart: every figure against one that is found in another way."""

import re
import subprocess
from math import floor
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from unet import UNet
from unet.analysis.network_summary import summarize_network
from unet.errors import UserError
from unet.network.geometry import count_flops, count_parameters, level_sizes

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
ROOT = Path(__file__).parent.parent

CASES = [
    pytest.param({"width": 4, "depth": 3, "down": "strided", "up": "transposed"}, (61, 83), id="2d-odd"),
    pytest.param(
        {"width": 4, "depth": 2, "down": ["max", "haar"], "up": ["carafe", "unpool"]}, (37, 52), id="2d-mixed"
    ),
    pytest.param({"width": 4, "depth": 2, "context": "aspp", "skip": "add"}, (33, 40), id="2d-aspp"),
    pytest.param(
        {"width": 4, "depth": 2, "spatial_dims": 3, "stride": [[1, 2, 2], 2], "up": "linear"}, (9, 20, 17), id="3d"
    ),
    pytest.param({"width": 4, "depth": 4, "spatial_dims": 1, "down": "avg", "up": "nearest"}, (1001,), id="1d"),
]


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_totals_and_sizes_are_those_of_the_network(settings: dict[str, Any], size: tuple[int, ...]):
    found, net = summarize_network(settings, size), UNet(**settings)
    assert found.parameters == count_parameters(net)
    assert found.flops == count_flops(net, (1, 3, *size))
    for stage in found.layers:
        assert stage.parameters == sum(p.numel() for p in net.get_submodule(stage.name).parameters())
    sizes = {stage.name: stage.size for stage in found.layers}
    levels = level_sizes(size, net.strides)
    assert [sizes["stem"], *(sizes[f"encoder.{i}"] for i in range(len(net.strides)))] == levels
    assert [sizes[f"decoder.{i}"] for i in range(len(net.strides))] == levels[:-1]
    padded = tuple(n + sum(p) for n, p in zip(found.size, found.padding, strict=True))
    assert padded == sizes["head"] == levels[0]
    widths = {stage.name: stage.channels for stage in found.layers}
    assert [widths[f"encoder.{i}"] for i in range(len(net.strides))] == net.widths[1:]
    assert widths["head"] == 2
    strides = {stage.name: stage.stride for stage in found.layers}
    assert strides["context"] == net.total_stride and strides["head"] == (1,) * net.spatial_dims


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_every_formula_comes_out_at_the_size_it_explains(settings: dict[str, Any], size: tuple[int, ...]):
    explained = 0
    for stage in summarize_network(settings, size).layers:
        for formula in filter(None, stage.formula.split(",  ")):
            left, right = formula.split(" = ")
            left = left.replace("·", "*").replace(" x ", "*")
            left = re.sub(r"(\d|\)) ?(?=\()", r"\1*", left)  # d(k - 1)
            left = re.sub(r"\) (?=\d)", ") * ", left).replace("floor*", "floor")  # (n - 1) s
            assert eval(left, {"floor": floor}) == int(right), formula
            assert int(right) in stage.size
            explained += 1
    assert explained >= 2 * len(UNet(**settings).strides)


def test_memory_by_hand():
    """No norm: each convolution keeps its input, each relu its output, which is the next convolution's input."""
    found = summarize_network({"width": 4, "depth": 0, "norm": "none", "in_channels": 3}, (16, 24))
    kept = {stage.name: stage.memory for stage in found.layers}
    assert kept["stem"] == (3 + 4 + 4) * 16 * 24 * 4
    assert found.memory == kept["stem"], "the head's input is the stem's output, kept once"
    several = summarize_network({"width": 4, "depth": 0, "norm": "none"}, (16, 24), batch=3)
    assert (several.memory, several.flops) == (found.memory, found.flops), "figures are those of one image"


def test_a_layer_of_flops_by_hand():
    found = summarize_network({"width": 4, "depth": 1, "down": "strided"}, (16, 24))
    flops = {stage.name: stage.flops for stage in found.layers}
    assert flops["downs.0"] == 2 * 3 * 3 * 4 * 4 * (8 * 12)
    assert flops["ups.0"] == 2 * 2 * 2 * 8 * 4 * (8 * 12)
    assert flops["head"] == 2 * 4 * 2 * (16 * 24)


def test_it_warns_of_a_small_bottleneck_and_of_objects_it_cannot_see_whole():
    assert summarize_network({"width": 2, "depth": 2}, (64, 64)).warnings == []
    (warning,) = summarize_network({"width": 2, "depth": 4}, (64, 64)).warnings
    assert "bottleneck is 4 x 4" in warning
    (warning,) = summarize_network({"width": 2, "depth": 2}, (64, 64), object_size=40).warnings
    assert "is 32 x 32 samples, smaller than an object of 40" in warning


def test_any_size_is_described_at_once_and_one_too_small_is_refused():
    assert summarize_network({"width": 64, "depth": 4}, (20_000, 20_000)).flops > 1e14
    with pytest.raises(UserError, match="too small for depth 4"):
        summarize_network({"width": 2, "depth": 4}, (9, 64))


def describe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run(["scripts/describe.py", *arguments], ROOT)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model.down=strided", "input=3x361x481"], ["padded to 368 x 496", "155 x 155", "2,138,914"]),
        (
            ["model.stride=[[1,2,2],2,2]", "model.depth=3", "input=1x17x96x90", "model.up=trilinear"],
            ["padded to 20 x 96 x 96", "4 x 8 x 8", "linear"],
        ),
        (["input=3x5400", "model.down=blur"], ["padded to 5408", "338 "]),
    ],
    ids=["2d-odd", "3d-anisotropic", "1d"],
)
def test_the_script_prints_it(arguments: list[str], expected: list[str]):
    done = describe(*arguments)
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=3x"], "input=3x: expected positive numbers joined by x"),
        (["input=3"], "expected channels and 1 to 3 sizes"),
        (["input=3x64x64", "model.spatial_dims=3"], "model.spatial_dims=3: input=3x64x64 has 2 axes"),
        (["model.down=strid"], "did you mean strided?"),
        (["inptu=3x64x64"], "inptu: no such key; did you mean input?"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str], message: str):
    done = describe(*arguments)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_description_computes_nothing_of_the_network_s_size():
    """A volume whose activations would take terabytes is described at once, and no default is left changed."""
    before = torch.get_default_device()
    found = summarize_network({"in_channels": 1, "width": 64, "depth": 2, "spatial_dims": 3}, (2048, 2048, 2048))
    assert found.memory > 2**42 and torch.get_default_device() == before
