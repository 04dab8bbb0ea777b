"""``scripts/benchmark.py operators``: which operators are measured, and their memory. No test asserts a speed."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet import CONTEXT, DOWN, UP
from unet.analysis.activation_memory import cuda_peak_bytes, saved_tensor_bytes
from unet.benchmark import timing
from unet.benchmark.operators import OperatorShape, compare_operators
from unet.benchmark.tensor_format import PLAIN
from unet.commands import benchmark
from unet.errors import UserError


@pytest.fixture(autouse=True)
def no_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time every call once."""
    monkeypatch.setattr(timing, "MIN_TIMING_MS", 0.0)


def small_shape(*size: int) -> OperatorShape:
    return OperatorShape(channels=4, size=size, batch=2, format=PLAIN, device="cpu")


@pytest.mark.parametrize(("dims", "size"), [(1, "16"), (2, "8x12"), (3, "8x12x8")])
def test_every_operator_of_every_dimension_is_measured(capsys, monkeypatch, tmp_path: Path, dims: int, size: str):
    file = tmp_path / "costs.json"
    options = [f"dims={dims}", "channels=4", f"size={size}", "batch=1", "rounds=1", "precision=fp32", "threads=1"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "operators", *options, f"json={file}"])
    benchmark.main()
    printed, results = capsys.readouterr().out, json.loads(file.read_text())
    measured = [(cost["kind"], cost["name"]) for cost in results["operators"]]
    expected = [
        *(("down", name) for name in DOWN),
        *(("up", name) for name in UP if name != "bicubic" or dims == 2),
        *(("context", name) for name in CONTEXT if name != "none"),
    ]
    assert measured == expected
    for cost in results["operators"]:
        assert cost["name"] in printed
        assert cost["forward_ms"] > 0 and cost["training_ms"] > 0 and cost["saved_bytes"] > 0
        if cost["name"] in ("max", "transposed"):
            assert cost["forward_ratio"] == cost["training_ratio"] == 1.0
        assert (cost["kind"] == "context") == (cost["forward_ratio"] is None)


def test_a_newly_registered_operator_is_measured_in_the_dimensions_it_supports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DOWN, "_classes", dict(DOWN._classes))

    @DOWN.register("every_other")
    class EveryOther(nn.Module):
        def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...]):
            super().__init__()
            if spatial_dims != 2:
                raise UserError("model.down=every_other: for images of 2 axes")

        def forward(self, x: Tensor) -> Tensor:
            return 3 * x[..., ::2, ::2]

    def names(*size: int) -> list[str]:
        return [cost.name for cost in compare_operators(small_shape(*size), rounds=1) if cost.kind == "down"]

    assert names(4, 4) == list(DOWN) and names(4, 4)[-1] == "every_other"
    assert names(4) == list(DOWN)[:-1]


def test_saved_bytes_of_operators():
    costs = {(cost.kind, cost.name): cost.saved_bytes for cost in compare_operators(small_shape(8, 12), rounds=1)}
    fine, coarse = 2 * 4 * 8 * 12, 2 * 4 * 4 * 6
    assert costs["down", "max"] == 4 * fine + 8 * coarse  # the input, and the index of the maximum of each window
    assert costs["down", "avg"] == 4 * fine
    assert costs["up", "transposed"] == 4 * 2 * coarse  # the input, of twice the channels


def test_saved_bytes_count_a_storage_once_and_no_parameters():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    first, second = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)
    parameters = [*first.parameters(), *second.parameters()]
    assert saved_tensor_bytes(lambda: (first(x), second(x[:1])), parameters) == 4 * x.numel()
    weights = 4 * 2 * first.weight.numel()
    assert saved_tensor_bytes(lambda: (first(x), second(x))) == 4 * x.numel() + weights
    assert saved_tensor_bytes(lambda: F.relu(x) + x) == 4 * x.numel()  # a relu saves its output


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_counts_simultaneous_memory():
    x = torch.zeros(2**20, device="cuda")
    assert cuda_peak_bytes(lambda: (x + 1, x + 2)) == 2 * x.nbytes
    assert cuda_peak_bytes(lambda: x.add_(1)) == 0
