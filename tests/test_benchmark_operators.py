"""``scripts/benchmark.py operators``: which operators it measures, what it counts. Nothing here asserts a speed."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet import CONTEXT, DOWN, UP
from unet.analysis.activation_memory import cuda_peak_bytes, saved_tensor_bytes
from unet.benchmark import timing
from unet.benchmark.forms import Form
from unet.benchmark.operators import OperatorShape, compare_operators
from unet.commands import benchmark
from unet.errors import UserError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call is one timing, however short it is."""
    monkeypatch.setattr(timing, "SAMPLE_MS", 0.0)


def tiny(size: tuple[int, ...], form: Form | None = None) -> OperatorShape:
    return OperatorShape(channels=4, size=size, batch=2, form=form or Form(), device="cpu")


# The command


@pytest.mark.parametrize(("dims", "size"), [(1, "16"), (2, "8x12"), (3, "8x12x8")])
def test_every_operator_of_every_dimension_is_measured(capsys, monkeypatch, tmp_path: Path, dims: int, size: str):
    file = tmp_path / "costs.json"
    options = [f"dims={dims}", "channels=4", f"size={size}", "batch=1", "rounds=1", "precision=fp32", "threads=1"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "operators", *options, f"json={file}"])
    benchmark.main()
    printed, results = capsys.readouterr().out, json.loads(file.read_text())
    found = [(cost["kind"], cost["name"]) for cost in results["operators"]]
    expected = [
        *(("down", name) for name in DOWN),
        *(("up", name) for name in UP if name != "bicubic" or dims == 2),
        *(("context", name) for name in CONTEXT if name != "none"),
    ]
    assert found == expected
    for cost in results["operators"]:
        assert cost["name"] in printed
        assert cost["forward_ms"] > 0 and cost["training_ms"] > 0 and cost["kept"] > 0
        if cost["name"] in ("max", "transposed"):
            assert cost["forward_ratio"] == cost["training_ratio"] == 1.0
        assert (cost["kind"] == "context") == (cost["forward_ratio"] is None)


# What is measured


def test_a_newly_registered_operator_appears_and_only_where_it_serves(monkeypatch: pytest.MonkeyPatch):
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
        return [cost.name for cost in compare_operators(tiny(size), rounds=1) if cost.kind == "down"]

    assert names(4, 4) == list(DOWN) and names(4, 4)[-1] == "every_other"
    assert names(4) == list(DOWN)[:-1]


def test_what_operators_keep_by_hand():
    costs = {(cost.kind, cost.name): cost.kept for cost in compare_operators(tiny((8, 12)), rounds=1)}
    fine, coarse = 2 * 4 * 8 * 12, 2 * 4 * 4 * 6
    assert costs["down", "max"] == 4 * fine + 8 * coarse  # the input, and for each window where its maximum was
    assert costs["down", "avg"] == 4 * fine
    assert costs["up", "transposed"] == 4 * 2 * coarse  # the input, of twice the channels


def test_a_storage_counts_once_and_parameters_do_not():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    one, two = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)
    parameters = [*one.parameters(), *two.parameters()]
    assert saved_tensor_bytes(lambda: (one(x), two(x[:1])), parameters) == 4 * x.numel()
    weights = 4 * 2 * one.weight.numel()
    assert saved_tensor_bytes(lambda: (one(x), two(x))) == 4 * x.numel() + weights
    assert saved_tensor_bytes(lambda: F.relu(x) + x) == 4 * x.numel()  # a relu keeps what it gives


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_counts_what_is_there_at_once():
    x = torch.zeros(2**20, device="cuda")
    assert cuda_peak_bytes(lambda: (x + 1, x + 2)) == 2 * x.nbytes
    assert cuda_peak_bytes(lambda: x.add_(1)) == 0
