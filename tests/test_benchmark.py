"""The benchmark's arithmetic and fairness. No test here asserts how fast anything is."""

import json
import sys
from types import SimpleNamespace

import processes
import pytest
import torch
from conftest import ROOT
from torch import nn

from unet.benchmark import baselines, loader, networks, peak, tables, timing
from unet.commands import benchmark
from unet.errors import UserError
from unet.network.geometry import count_flops

SMALL = baselines.Workload(width=4, depth=4, batch=1, size=(128, 128))


def test_the_ratio_does_not_depend_on_slow_rounds():
    reference = [10.0, 11.0, 31.5, 40.0, 50.0]  # the machine slows down
    assert timing.median_ratio([2.5 * ms for ms in reference], reference) == pytest.approx(2.5)
    assert timing.median_ratio([20.0, 20.0, 900.0, 20.0, 20.0], [10.0] * 5) == 2.0


def test_every_round_times_every_call_once_in_rotating_order(monkeypatch):
    monkeypatch.setattr(timing, "MIN_TIMING_MS", 0.0)
    log: list[str] = []
    calls = {name: lambda name=name: log.append(name) for name in "abc"}
    timings = timing.measure(calls, rounds=3)
    assert {name: len(ms) for name, ms in timings.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(log) == "abcabc" + "abcbcacab"  # two calls to warm up, then the rounds


def test_flops_of_a_convolution_equal_those_of_torch():
    convolution = peak.Convolution(6, 4, (10, 12))
    module = nn.Conv2d(6, 4, 3, padding=1, bias=False)
    assert convolution.flops(batch=2) == count_flops(module, (2, 6, 10, 12))


def test_rates_and_peak_fractions_follow_from_the_timings():
    network = baselines.BenchmarkNetwork(baselines.REFERENCE, nn.Conv2d(3, 8, 3, padding=1, bias=False))
    workload = baselines.Workload(batch=2, size=(16, 16))
    flops = 2 * 9 * 3 * 8 * 16 * 16 * 2
    convolution = peak.Convolution(3, 16, (16, 16))  # twice the FLOPs
    name = network.name
    timings = {(name, "training"): [12.0] * 3, (name, "inference"): [2.0] * 3, (torch.float32, convolution): [1.0] * 3}
    speed = networks.network_speed(network, workload, timings, convolution)
    assert speed.gflops == pytest.approx(flops / 2 / 1e9)
    assert speed.inference.gflops_per_s == pytest.approx(flops / 2e-3 / 1e9)
    assert speed.inference.peak_fraction == pytest.approx(0.25)  # half the FLOPs in twice the time
    assert speed.training.peak_fraction == pytest.approx(0.125)  # 1.5 times the FLOPs in twelve times the time


def test_networks_agree_on_the_shape_of_the_logits():
    available, messages = baselines.available_networks(SMALL)
    assert len(available) + len(messages) == 2 + len(baselines.PEERS)
    for network in available:
        logits = network.inference(SMALL.image())()
        assert logits.shape == (1, baselines.NUM_CLASSES, 128, 128), network.name


def test_monai_has_the_widths_of_this_network(monkeypatch):
    options = {}
    fake = SimpleNamespace(BasicUNet=lambda **kwargs: options.update(kwargs) or nn.Identity())
    monkeypatch.setattr(baselines, "import_optional", lambda module, name: fake)
    baselines.monai_basic_unet(SMALL)
    assert list(options["features"]) == [*SMALL.network().widths, SMALL.width]
    assert (options["in_channels"], options["out_channels"]) == (baselines.IN_CHANNELS, baselines.NUM_CLASSES)


def test_a_training_step_trains_a_copy():
    network = baselines.in_training_format(SMALL.network(), "cpu")
    weights = [p.clone() for p in network.network.parameters()]
    step = network.training_step(SMALL.image(), SMALL.target())
    losses = [float(step()) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(weights, network.network.parameters(), strict=True))


def test_a_missing_package_is_one_line_with_the_install_command(monkeypatch):
    for package in ("monai", "monai.networks.nets", "segmentation_models_pytorch"):
        monkeypatch.setitem(sys.modules, package, None)
    available, messages = baselines.available_networks(SMALL)
    assert [network.name for network in available] == ["this project", "this network, plain"]
    assert len(messages) == 2
    for message in messages:
        assert "pip install -e '.[bench]'" in message and "\n" not in message


def test_monai_is_left_out_at_another_depth():
    _, messages = baselines.available_networks(baselines.Workload(width=4, depth=3, batch=1, size=(128, 128)))
    assert any("MONAI" in message and "always 4, not 3" in message for message in messages)


class FakeLoader:
    """Epochs of 4, 4 and 1 images; each batch takes 0.1 s of a clock, the first epoch 5 s more."""

    def __init__(self, num_workers: int = 0, prefetch_factor: int | None = None):
        self.now, self.epochs = 100.0, 0
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor

    def __iter__(self):
        self.now += 5.0 * (self.epochs == 0)
        self.epochs += 1
        for size in (4, 4, 1):
            self.now += 0.1
            yield {"image": torch.zeros(size, 3, 8, 8)}


@pytest.mark.parametrize("queue", [{}, {"num_workers": 2, "prefetch_factor": 2}])
def test_loader_rate_excludes_the_start(queue):
    source = FakeLoader(**queue)
    rate = loader.loader_rate(source, seconds=30.0, clock=lambda: source.now)
    assert rate == pytest.approx(30.0, rel=0.02)  # 9 in 0.3 s
    assert source.epochs >= 100


def test_an_empty_loader_is_an_error():
    with pytest.raises(UserError, match="yields no batch"):
        loader.loader_rate([], seconds=1.0)


@pytest.mark.parametrize(
    ("rate", "workers", "verdict"),
    [
        (50.0, 2, "2.5 times what is needed"),
        (10.0, 2, "too slow: only 50% of what is needed"),
        (200.0, 0, "loading adds 10.0% to the time of a step"),
    ],
)
def test_the_loader_line_says_whether_the_loader_is_fast_enough(rate, workers, verdict):
    assert verdict in tables.loader_line(loader.LoaderSpeed(rate, 20.0, (4, 3, 64, 64), workers))


def test_the_loader_is_compared_with_a_training_step_on_its_batch(monkeypatch):
    monkeypatch.setattr(timing, "MIN_TIMING_MS", 0.0)
    monkeypatch.setattr(loader, "LOADER_SECONDS", 0.01)
    batch = {"image": torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "target": torch.full((2, 16, 16), 255)}
    batch["target"][:, 0] = 1
    speed = loader.compare_loader([batch], nn.Conv2d(3, 2, 1), rounds=1, device="cpu")
    assert speed.image_shape == (2, 3, 16, 16) and speed.num_workers == 0
    assert speed.samples_per_s > 0 and speed.needed_per_s > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["size=192"], "size=192: expected HEIGHTxWIDTH, such as 192x256"),
        (["size=0x64"], "size=0x64: expected positive numbers joined by x"),
        (["size=32x256"], "size=32x256 is too small for depth=4: give 64x64 or more"),
        (["size=64x64", "depth=5"], "give 128x128 or more"),
        (["rounds=0"], "rounds: expected an integer of at least 1, found 0"),
        (["width=wide"], "width: expected null or an integer of at least 1, found 'wide'"),
        (["json=no/such/folder/a.json"], "expected a file in a folder that exists"),
        (["growth", "plot=no/such/folder/a.png"], "expected a file in a folder that exists"),
        (["growth", "plot=a.txt"], "plot=a.txt: expected a name that ends in .png, .svg, .pdf"),
        (["layers", "down=maxx"], "model.down: unknown operator 'maxx'; did you mean max?"),
        (["layers", "up=[bilinear]"], "expected one value or 4"),
        (["speed"], "what: unknown 'speed' (valid: network, layers, growth, loader, operators)"),
        (["operators", "size=8x9"], "size=8x9 cannot be halved"),
        (["operators", "size=16", "dims=3"], "size=16 has 1 axes: give 3 numbers for dims=3"),
        (["operators", "dims=1", "memory_format=channels_last"], "torch has no such layout in 1-D"),
    ],
)
def test_an_invalid_value_is_one_line(args, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark.py", *args])
    with pytest.raises(SystemExit) as end:
        benchmark.main()
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.count("\n") == 1 and message in error


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_the_numbers(tmp_path):
    file = tmp_path / "speed.json"
    small = ["width=4", "batch=1", "size=128x128", "rounds=1", "threads=1"]
    result = processes.run([str(ROOT / "scripts" / "benchmark.py"), "network", *small, f"json={file}"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "this network, plain" in result.stdout and "GFLOP/s" in result.stdout
    results = json.loads(file.read_text())
    assert [results["problem"][key] for key in ("width", "depth", "batch", "size")] == [4, 4, 1, [128, 128]]
    first = results["networks"][0]
    assert first["training"]["ratio"] == first["inference"]["ratio"] == 1.0
    for network in results["networks"]:
        assert network["parameters"] > 0 and network["gflops"] > 0
        assert network["training"]["ms"] > 0 and network["training"]["peak_fraction"] > 0
