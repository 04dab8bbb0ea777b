"""``scripts/benchmark.py growth``: what is varied, the exponents, and the memory. No test asserts a speed."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from unet.benchmark import growth, timing
from unet.benchmark.baselines import BenchmarkNetwork, Workload
from unet.benchmark.growth import Growth, StepCost, held_bytes, step_peak_bytes, vary
from unet.benchmark.growth_report import growth_table
from unet.benchmark.tensor_format import PLAIN
from unet.commands import benchmark
from unet.errors import UserError

SMALL = Workload(width=4, depth=2, batch=3, size=(32, 48))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_only_what_is_varied_changes(factor: int):
    pixels, text = vary(SMALL, "pixels", factor)
    assert math.prod(pixels.size) == factor * 32 * 48 and text == f"{pixels.size[0]} x {pixels.size[1]}"
    assert (pixels.width, pixels.batch) == (SMALL.width, SMALL.batch)
    assert vary(SMALL, "batch", factor) == (Workload(4, 2, 3 * factor, (32, 48)), str(3 * factor))
    assert vary(SMALL, "width", factor) == (Workload(4 * factor, 2, 3, (32, 48)), str(4 * factor))


def make_growth(ms: float, peak_bytes: float, flops: float, held: float) -> Growth:
    """Costs that grow with the given exponents."""
    factors = (1, 2, 4, 8)
    costs = [StepCost(f**ms, 10**6 * f**peak_bytes, 10**9 * f**flops, 10**6 * f**held) for f in factors]  # type: ignore
    return Growth("batch", factors, ["1", "2", "4", "8"], costs)


def test_the_exponent_is_the_slope_of_the_logarithms():
    grown = make_growth(1.5, 0.5, 2.0, 1.0)
    slopes = [grown.exponent(cost) for cost in ("ms", "peak_bytes", "flops", "held_bytes")]
    assert slopes == pytest.approx([1.5, 0.5, 2.0, 1.0])


def test_only_exponents_that_deviate_from_arithmetic_are_reported():
    assert growth_table([make_growth(1.0, 0.95, 1.0, 1.0)]).endswith("deviations of more than 0.1: none")
    line = growth_table([make_growth(1.5, 1.0, 2.0, 1.0)]).splitlines()[-1]
    assert line.endswith("time grows with batch^1.50, the FLOPs with ^2.00")


def test_held_bytes_by_hand():
    network = BenchmarkNetwork("test", nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.Sigmoid(), nn.Conv2d(5, 2, 1)))
    step = network.training_step(torch.randn(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.int64))
    sigmoid, log_softmax, count = 4 * 4 * 5 * 64, 4 * 4 * 2 * 64, 4  # the convolution saves the sigmoid's output, too
    parameters = 3 * 5 + 5 * 2 + 2
    assert held_bytes(step) == sigmoid + log_softmax + count + 8 * parameters
    wide = BenchmarkNetwork("test", nn.Conv2d(3, 2, 9, padding=4, bias=False))  # its gradients exceed what it saves
    step = wide.training_step(torch.randn(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert held_bytes(step) == (4 + 8) * 3 * 2 * 9 * 9


@pytest.mark.slow
def test_peak_memory_of_a_step_is_measured_in_another_process():
    workload = Workload(width=16, depth=3, batch=4, size=(128, 128))
    peak, held = step_peak_bytes(workload, PLAIN), held_bytes(growth.build_step(workload, PLAIN))
    assert 0.9 * held < peak < 3 * held


def die(*args: object) -> None:
    """End the process as the system does when memory runs out."""
    os._exit(9)


def test_a_killed_measurement_is_an_error_that_names_the_workload(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(growth, "resident_peak_bytes", die)
    with pytest.raises(UserError, match="width 4 on 3 images of 32 x 48 was killed"):
        step_peak_bytes(SMALL, PLAIN)


def test_the_command_prints_the_table_and_writes_the_plot(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(timing, "MIN_TIMING_MS", 0.0)
    monkeypatch.setattr(growth, "FACTORS", dict.fromkeys(growth.FACTORS, (1, 2)))
    monkeypatch.setattr(growth, "step_peak_bytes", lambda workload, _: 1000 * workload.batch * workload.width)
    plot, file = tmp_path / "growth.png", tmp_path / "growth.json"
    options = ["width=4", "depth=2", "batch=1", "size=64x64", "rounds=1", "threads=1", "precision=fp32"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "growth", *options, "up=[bilinear,transposed]"])
    monkeypatch.setattr("sys.argv", [*benchmark.sys.argv, f"plot={plot}", f"json={file}"])
    benchmark.main()
    printed, growths = capsys.readouterr().out, json.loads(file.read_text())["growth"]
    assert [entry["varied"] for entry in growths] == ["pixels", "batch", "width"]
    assert [entry["values"] for entry in growths] == [["64 x 64", "64 x 128"], ["1", "2"], ["4", "8"]]
    first = [entry["costs"][0] for entry in growths]
    assert first[0] == first[1] == first[2]  # the same workload is measured once
    flops = [entry["costs"][1]["flops"] / entry["costs"][0]["flops"] for entry in growths]
    assert flops[:2] == pytest.approx([2.0, 2.0]) and 3 < flops[2] < 4
    assert "exponent of" in printed and "deviations of more than" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.json", "growth.png"]
    with Image.open(plot) as image:
        assert image.format == "PNG"
