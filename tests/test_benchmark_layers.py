"""``scripts/benchmark.py layers``: what is recorded in a step, and what is timed. No test asserts a speed."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from torch import Tensor, nn

from unet.benchmark import timing
from unet.benchmark.baselines import BenchmarkNetwork, Workload, in_training_format
from unet.benchmark.layers import part_speed
from unet.benchmark.peak import Convolution, fastest, own_convolutions
from unet.benchmark.recording import RecordedOp, copy_with_strides, record_step
from unet.benchmark.step_parts import PARTS, Part, convolution_parts, other_parts
from unet.benchmark.tensor_format import TensorFormat
from unet.commands import benchmark
from unet.network.geometry import count_flops

CHANNELS_LAST = TensorFormat(channels_last=True)


def small_workload(**options: str) -> Workload:
    return Workload(width=4, depth=2, batch=2, size=(32, 48), **options)  # type: ignore[arg-type]


def record(workload: Workload, tensor_format: TensorFormat = CHANNELS_LAST) -> list[RecordedOp]:
    network = in_training_format(workload.network(), "cpu", tensor_format)
    return record_step(network.training_step(workload.image(), workload.target()))


def convolutions(ops: list[RecordedOp]) -> list[RecordedOp]:
    return [op for op in ops if op.is_convolution]


def test_equal_operations_are_recorded_once_with_their_count():
    network = BenchmarkNetwork("test", nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.ReLU()))
    ops = record_step(network.training_step(torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)))
    counts = [(op.name, op.phase, op.count) for op in convolutions(ops)]
    # The image needs no gradient, so the first convolution's backward pass is another operation.
    expected = [("convolution", "forward", 3), ("convolution_backward", "backward", 2)]
    assert counts == [*expected, ("convolution_backward", "backward", 1)]
    relu = next(op for op in ops if op.name == "relu")
    assert relu.num_bytes == 2 * 4 * (2 * 3 * 8 * 8)  # reads its input and writes its output
    assert {op.phase for op in ops} == {"forward", "backward", "optimizer"}


def test_a_copy_keeps_values_and_strides():
    x = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    for source in (x, x[:, 2:5], x[:, :1].expand(2, 3, 4, 5), x[:0], x[0, 0, 0, 0]):
        copy = copy_with_strides(source)
        assert torch.equal(copy, source) and copy.stride() == source.stride()
        assert copy.numel() == 0 or copy.data_ptr() != source.data_ptr()


def test_recording_does_not_change_the_step():
    workload = small_workload()
    network = in_training_format(workload.network(), "cpu", CHANNELS_LAST)
    image, target = workload.image(), workload.target()
    recorded, plain = network.training_step(image, target), network.training_step(image, target)
    record_step(recorded)
    for _ in range(2):
        plain()
    for a, b in zip(recorded.network.state_dict().values(), plain.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("down", "up"), [("max", "transposed"), ("strided", "pixel_shuffle"), ("blur", "bilinear"), ("avg", "unpool")]
)
def test_the_flops_of_all_convolutions_are_those_of_the_network(down: str, up: str):
    workload = small_workload(down=down, up=up)
    parts = convolution_parts(convolutions(record(workload)), CHANNELS_LAST.to_memory_format)
    flops = {part: sum(value.amount for (*_, name), value in parts.items() if name == part) for part in PARTS}
    forward = count_flops(workload.network(), (2, 3, 32, 48))
    first = 2 * 9 * 3 * 4 * 32 * 48 * 2
    blur = flops["forward"] - flops["weight gradient"]  # its kernel is fixed
    assert flops["forward"] == forward
    assert flops["input gradient"] == forward - first
    assert (blur > 0) == (down == "blur")


def test_the_parts_of_a_gradient_are_those_of_the_whole():
    for op in convolutions(record(small_workload())):
        if op.name == "convolution_backward":
            whole = op.call()()
            parts = convolution_parts([op], CHANNELS_LAST.to_memory_format)
            for (*_, name), part in parts.items():
                index = PARTS.index(name) - 1
                for call in (*part.calls, *part.plain_calls):
                    result: tuple[Tensor, ...] = call()  # type: ignore[assignment]
                    torch.testing.assert_close(result[index], whole[index])  # type: ignore[index]
                    assert result[1 - index] is None


def test_the_plain_kernel_differs_where_the_step_has_another_layout_or_a_bias():
    parts = convolution_parts(convolutions(record(small_workload())), CHANNELS_LAST.to_memory_format)
    differs = {(name, part) for (name, _, part), value in parts.items() if value.plain_calls != value.calls}
    assert ("conv 1x1, 4 to 12", "weight gradient") in differs  # the head has a bias
    assert all(name == "conv 1x1, 4 to 12" for name, _ in differs)  # no copies and biases in the step of this network


def test_speed_of_a_part_follows_from_the_timings():
    def call() -> None: ...

    def plain() -> None: ...

    part = Part()
    part.add(call, count=3, amount=2_000_000, plain=plain)
    timings = {call: [2.0, 4.0, 2.0], plain: [1.0, 2.0, 1.0]}
    speed = part_speed(part, timings, [5e-7, 1e-6, 5e-7])  # the peak: 2 GFLOP/s, then half of it
    assert speed.ms == 6.0 and speed.rate == pytest.approx(1.0)  # 6 MFLOP in 6 ms
    assert speed.peak_fraction == pytest.approx(0.5) and speed.plain_peak_fraction == pytest.approx(1.0)
    assert part_speed(part, timings, None).peak_fraction is None


def test_other_layers_are_grouped_by_name_and_size():
    ops = [op for op in record(small_workload()) if op.phase != "optimizer" and not op.is_convolution]
    weights = {tuple(p.shape) for p in small_workload().network().parameters()}
    parts = other_parts(ops, weights)
    fine = 4 * (2 * 4 * 32 * 48)  # bytes of a feature map
    for phase, maps in (("forward", 2), ("backward", 3)):
        assert sum(parts["relu", "32x48", phase].counts) == 4
        assert parts["relu", "32x48", phase].amount == 4 * maps * fine
        assert sum(parts["batch norm", "8x12", phase].counts) == 2
    assert parts["max pool", "32x48", "forward"].amount == fine + fine // 4 + 8 * fine // 4 // 4  # with int64 indices


def test_own_convolutions_are_the_different_3x3_convolutions():
    sizes = [(c.in_channels, c.out_channels, c.size) for c in own_convolutions(small_workload())]
    encoder = [(3, 4, (32, 48)), (4, 4, (32, 48)), (4, 8, (16, 24)), (8, 8, (16, 24)), (8, 16, (8, 12))]
    assert sizes == [*encoder, (16, 16, (8, 12)), (16, 8, (16, 24)), (8, 4, (32, 48))]


def test_the_peak_is_that_of_the_convolution_with_the_best_round():
    small, large, other = (Convolution(n, n, (8, 8)) for n in (4, 8, 16))
    timings = {
        (torch.float32, small): [1.0, 1.0, 1.0],
        (torch.float32, large): [9.0, 3.9, 9.0],  # 4 times the FLOPs of small; slow in two rounds
        (torch.bfloat16, other): [1.0, 1.0, 1.0],
        "step": [0.001] * 3,
    }
    assert fastest(timings, torch.float32) == large
    assert fastest({**timings, (torch.float32, large): [4.1] * 3}, torch.float32) == small


def test_defaults_are_those_of_a_training():
    model = OmegaConf.load(ROOT / "configs" / "train.yaml").model
    data, own = (OmegaConf.load(ROOT / "configs" / name) for name in ("data/blue_marble.yaml", "benchmark.yaml"))
    (crop,) = (step for step in data.train_transforms if step["_target_"].endswith("RandomCrop"))
    for what in ("layers", "growth"):
        assert benchmark.WORKLOADS[what] == (model.width, data.batch_size, f"{crop.height}x{crop.width}")
    assert (own.depth, own.down, own.up) == (model.depth, model.down, model.up)


@pytest.mark.parametrize(("precision", "down"), [("fp32", "max"), ("bf16", "{name: blur, kernel_size: 5}")])
def test_the_command_prints_all_layers_and_their_sum(precision: str, down: str, capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(timing, "MIN_TIMING_MS", 0.0)
    file = tmp_path / "layers.json"
    options = ["width=4", "depth=2", "batch=1", "size=64x64", "rounds=1", "threads=1", f"precision={precision}"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "layers", *options, f"down={down}", f"json={file}"])
    benchmark.main()
    printed, layers = capsys.readouterr().out, json.loads(file.read_text())["layers"]
    for layer in (*layers["convolutions"], *layers["others"]):
        assert layer["layer"] in printed and layer["count"] > 0
    for kind in ("convolutions", "others"):
        ms = sum(part["ms"] for layer in layers[kind] for part in layer["parts"].values())
        assert ms == pytest.approx(layers[f"{kind}_ms"])  # of one round
    total = layers["convolutions_ms"] + layers["others_ms"] + layers["optimizer_ms"]
    assert layers["sum_fraction"] == pytest.approx(total / layers["step_ms"])
    assert f"= {total:.1f} ms, {layers['sum_fraction']:.0%} of a whole step" in printed
    assert layers["format"] == f"{precision} channels_last" and layers["peak"]["dtype"] == precision
