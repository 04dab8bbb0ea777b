"""``model.checkpointing``: the same training in less memory."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import ROOT

from unet import UNet
from unet.analysis.network_summary import summarize_network
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")
SETTINGS = [
    {"spatial_dims": 1, "norm": "batch", "dropout": 0.2},
    {"spatial_dims": 2, "norm": "batch", "up": "unpool", "skip": "attention", "depth": 3, "deep_supervision": True},
    {"spatial_dims": 2, "norm": "batch", "up": "sapa", "down": "strided", "context": "spp"},
    {"spatial_dims": 3, "norm": "instance", "up": "trilinear", "skip": "add", "block": "residual"},
]


def test_synchronized_batch_norm_is_supported():
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(UNet(width=4, depth=2, checkpointing=True))
    net(torch.randn(2, 3, 16, 16)).sum().backward()
    counts = [buffer for name, buffer in net.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and all(count == 1 for count in counts)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_outputs_gradients_and_statistics_are_the_same(settings: dict[str, Any]):
    torch.manual_seed(0)
    plain = UNet(**{"width": 4, "depth": 2, **settings})
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpointing = True
    image = torch.randn(2, 3, *[16] * plain.spatial_dims)
    results = []
    for net in (plain, checkpointed):
        torch.manual_seed(1)  # of dropout
        output = net(image)
        outputs = output if isinstance(output, list) else [output]
        sum((logits**2).mean() for logits in outputs).backward()
        results.append((*outputs, *[p.grad for p in net.parameters()], *net.buffers()))
    assert len(results[0]) == len(results[1])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_only_training_computes_twice():
    net = UNet(width=4, depth=2, checkpointing=True)
    calls = []
    net.stem.register_forward_pre_hook(lambda *_: calls.append(1))
    image = torch.randn(2, 3, 16, 16)
    net(image).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        net(image)
    net.eval()(image).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize(
    "settings", [{}, {"up": "bilinear", "block": "residual"}, {"spatial_dims": 3, "depth": 3}], ids=str
)
def test_the_summary_has_the_memory_that_is_left(settings: dict[str, Any]):
    size = [128] * settings.get("spatial_dims", 2)
    plain, checkpointed = (
        summarize_network({"width": 16, "checkpointing": value, **settings}, size) for value in (False, True)
    )
    assert plain.layers == checkpointed.layers
    assert 0.2 * plain.memory < checkpointed.memory < 0.75 * plain.memory


@pytest.mark.slow
def test_the_memory_that_the_summary_says_is_saved_is_saved():
    def peak(checkpointing: bool) -> int:
        code = f"""
import resource, torch
from unet import UNet
torch.set_num_threads(1)
net = UNet(width=16, checkpointing={checkpointing})
net(torch.randn(2, 3, 64, 64)).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net(torch.randn(4, 3, 512, 512)).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(result.stdout)

    plain, checkpointed = (
        4 * summarize_network({"width": 16, "checkpointing": value}, (512, 512)).memory for value in (False, True)
    )
    saved = peak(False) - peak(True)
    assert saved == pytest.approx(plain - checkpointed, rel=0.25)


def test_a_run_trains_the_same_with_checkpointing(composed, tmp_path):
    metrics = [
        train(composed("trainer.max_epochs=2", f"model.checkpointing={value}"), tmp_path / str(value))
        for value in (False, True)
    ]
    assert metrics[0]["best/val_miou"] == metrics[1]["best/val_miou"]
    assert metrics[0]["test/loss"] == metrics[1]["test/loss"]
    assert metrics[1]["model/activation_bytes"] < metrics[0]["model/activation_bytes"]


@pytest.mark.slow
def test_a_compiled_network_has_the_same_gradients_and_statistics():
    torch.manual_seed(0)
    plain = UNet(width=4, depth=1)
    compiled = copy.deepcopy(plain)
    compiled.checkpointing = True
    compiled.compile(backend="aot_eager")  # traces and partitions as the default does, and compiles no C++
    image = torch.randn(2, 3, 32, 32)
    for net in (plain, compiled):
        net(image).sum().backward()
    for first, second in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert first.grad is not None and second.grad is not None
        assert torch.allclose(first.grad, second.grad, atol=1e-3 * float(first.grad.abs().max()) + 1e-5)
    for first, second in zip(plain.buffers(), compiled.buffers(), strict=True):
        assert torch.allclose(first, second, atol=1e-5)
