"""The network summary: its figures compared with independent computations."""

import re
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
    pytest.param({"width": 4, "depth": 2, "down": ["max", "haar"], "up": ["carafe", "unpool"]}, (37, 52), id="mixed"),
    pytest.param({"width": 4, "depth": 2, "context": "aspp", "skip": "add"}, (33, 40), id="2d-aspp"),
    pytest.param({"width": 4, "depth": 2, "skip": "attention", "block": "residual"}, (33, 40), id="2d-attention"),
    pytest.param(
        {"width": 4, "depth": 2, "spatial_dims": 3, "stride": [[1, 2, 2], 2], "up": "linear"}, (9, 20, 17), id="3d"
    ),
    pytest.param({"width": 4, "depth": 4, "spatial_dims": 1, "down": "avg", "up": "nearest"}, (1001,), id="1d"),
]


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_totals_and_sizes_match_the_network(settings: dict[str, Any], size: tuple[int, ...]):
    summary, net = summarize_network(settings, size), UNet(**settings)
    assert summary.parameters == count_parameters(net)
    assert summary.flops == count_flops(net, (1, 3, *size))
    for layer in summary.layers:
        assert layer.parameters == sum(p.numel() for p in net.get_submodule(layer.name).parameters())
    sizes = {layer.name: layer.size for layer in summary.layers}
    levels = level_sizes(size, net.strides)
    assert [sizes["stem"], *(sizes[f"encoder.{i}"] for i in range(len(net.strides)))] == levels
    assert [sizes[f"decoder.{i}"] for i in range(len(net.strides))] == levels[:-1]
    padded = tuple(n + sum(p) for n, p in zip(summary.size, summary.padding, strict=True))
    assert padded == sizes["head"] == levels[0]
    widths = {layer.name: layer.channels for layer in summary.layers}
    assert [widths[f"encoder.{i}"] for i in range(len(net.strides))] == net.widths[1:]
    assert widths["head"] == 2
    strides = {layer.name: layer.stride for layer in summary.layers}
    assert strides["context"] == net.total_stride and strides["head"] == (1,) * net.spatial_dims


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_every_formula_evaluates_to_its_size(settings: dict[str, Any], size: tuple[int, ...]):
    count = 0
    for layer in summarize_network(settings, size).layers:
        for formula in filter(None, layer.formula.split(",  ")):
            expression, size_out = formula.split(" = ")
            expression = expression.replace("·", "*").replace(" x ", "*")
            expression = re.sub(r"(\d|\)) ?(?=\()", r"\1*", expression)  # d(k - 1)
            expression = re.sub(r"\) (?=\d)", ") * ", expression).replace("floor*", "floor")  # (n - 1) s
            assert eval(expression, {"floor": floor}) == int(size_out), formula
            assert int(size_out) in layer.size
            count += 1
    assert count >= 2 * len(UNet(**settings).strides)


def test_memory_by_hand():
    """Without norm: each convolution saves its input, each ReLU its output, which is the next convolution's input."""
    summary = summarize_network({"width": 4, "depth": 0, "norm": "none", "in_channels": 3}, (16, 24))
    memory = {layer.name: layer.memory for layer in summary.layers}
    assert memory["stem"] == (3 + 4 + 4) * 16 * 24 * 4
    assert summary.memory == memory["stem"], "the head's input is the stem's output, saved once"
    batch = summarize_network({"width": 4, "depth": 0, "norm": "none"}, (16, 24), batch=3)
    assert (batch.memory, batch.flops) == (summary.memory, summary.flops), "figures are those of one image"


def test_flops_by_hand():
    summary = summarize_network({"width": 4, "depth": 1, "down": "strided"}, (16, 24))
    flops = {layer.name: layer.flops for layer in summary.layers}
    assert flops["downs.0"] == 2 * 3 * 3 * 4 * 4 * (8 * 12)
    assert flops["ups.0"] == 2 * 2 * 2 * 8 * 4 * (8 * 12)
    assert flops["head"] == 2 * 4 * 2 * (16 * 24)


def test_a_small_bottleneck_and_objects_larger_than_its_field_are_warned_about():
    assert summarize_network({"width": 2, "depth": 2}, (64, 64)).warnings == []
    (warning,) = summarize_network({"width": 2, "depth": 4}, (64, 64)).warnings
    assert "bottleneck is 4 x 4" in warning
    (warning,) = summarize_network({"width": 2, "depth": 2}, (64, 64), object_size=40).warnings
    assert "is 32 x 32 samples, smaller than an object of 40" in warning


def test_huge_images_are_summarized_without_computing_and_too_small_ones_are_refused():
    device = torch.get_default_device()
    summary = summarize_network({"in_channels": 1, "width": 64, "depth": 2, "spatial_dims": 3}, (2048, 2048, 2048))
    assert summary.memory > 2**42 and summary.flops > 1e14 and torch.get_default_device() == device
    with pytest.raises(UserError, match="too small for depth 4"):
        summarize_network({"width": 2, "depth": 4}, (9, 64))


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("model.down=strided input=3x361x481", 0, ["padded to 368 x 496", "155 x 155", "2,138,914"]),
        (
            "model.stride=[[1,2,2],2,2] model.depth=3 input=1x17x96x90 model.up=trilinear",
            *(0, ["padded to 20 x 96 x 96", "4 x 8 x 8", "linear"]),
        ),
        ("input=3x5400 model.down=blur", 0, ["padded to 5408", "338 "]),
        ("input=3x", 1, ["input=3x: expected positive numbers joined by x"]),
        ("input=3", 1, ["expected channels and 1 to 3 sizes"]),
        ("input=3x64x64 model.spatial_dims=3", 1, ["model.spatial_dims=3: input=3x64x64 has 2 axes"]),
        ("model.down=strid", 1, ["did you mean strided?"]),
        ("inptu=3x64x64", 1, ["inptu: no such key; did you mean input?"]),
    ],
)
def test_the_script_prints_the_summary_or_one_line_of_error(arguments: str, code: int, expected: list[str]):
    result = processes.run(["scripts/describe.py", *arguments.split()], ROOT)
    assert result.returncode == code and "Traceback" not in result.stderr, result.stderr
    assert all(text in (result.stderr if code else result.stdout) for text in expected)
