"""Precision, memory and device."""

import math
import os
import subprocess
import sys

import pytest
import torch

from unet import DOWN, UP, UNet, hardware
from unet.errors import UserError
from unet.hardware import (
    COMPILED_STEPS,
    channels_last,
    resolve_compile,
    resolve_precision,
    select_device,
    to_memory_format,
)

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

DEEP, TWO_DEEP = [(32, 16, 16), (4, 2, 2)], [(32, 16, 16), (2, 4, 4)]


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_it_is_native(monkeypatch: pytest.MonkeyPatch, native: bool):
    monkeypatch.setattr(hardware, "native_bf16", lambda accelerator: native)
    expected = "bf16-mixed" if native else "32-true"
    for sizes in ([], [(2, 2)], [(2,)], DEEP):
        assert resolve_precision("auto", "cpu", sizes) == expected
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"


def test_bf16_is_not_used_for_volumes_of_depth_2_on_a_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "native_bf16", lambda accelerator: True)
    assert resolve_precision("auto", "cpu", TWO_DEEP) == "32-true"
    assert resolve_precision("32-true", "cpu", TWO_DEEP) == "32-true"
    assert resolve_precision("auto", "cuda", TWO_DEEP) == "bf16-mixed"
    with pytest.raises(UserError, match=r"trainer.precision=bf16-mixed: .* a level of this network has 2 x 4 x 4"):
        resolve_precision("bf16-mixed", "cpu", TWO_DEEP)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", DOWN)
def test_every_down_operator_keeps_its_weights_in_channels_last(name: str, spatial_dims: int):
    net = UNet(width=4, depth=1, down=name, spatial_dims=spatial_dims)
    values = {key: value.clone() for key, value in net.state_dict().items()}
    assert to_memory_format(net, channels_last) is net
    assert all(torch.equal(value, values[key]) for key, value in net.state_dict().items())
    weight = net.get_parameter("encoder.0.0.0.weight")
    assert weight.stride(1) == 1 or spatial_dims == 1


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("down", "up"), [(name, "transposed") for name in DOWN] + [("max", name) for name in UP if name != "bicubic"]
)
def test_every_operator_trains_in_mixed_precision(down: str, up: str, spatial_dims: int):
    net = UNet(width=4, depth=1, down=down, up=up, spatial_dims=spatial_dims)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.randn(2, 3, *(8,) * spatial_dims))
    logits.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_an_unavailable_device_and_an_invalid_number_of_threads_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert select_device("auto", None) == select_device("cpu", 1) == "cpu"
    for device in ("gpu", "cuda", "mps", "abacus"):
        with pytest.raises(UserError, match=f"device={device}: not available; expected one of auto, cpu$"):
            select_device(device, None)
    for threads in (0, -1, True, 1.5, "many", 1025, 10**10):
        with pytest.raises(UserError, match="threads: expected null or an integer of 1 to 1024, found"):
            select_device("cpu", threads)  # pyright: ignore[reportArgumentType]


def test_the_memory_of_freed_tensors_is_kept_for_the_next_ones():
    code = """
import resource, torch
from unet.hardware import keep_freed_memory

def page_faults() -> int:
    torch.ones(2**22)  # 16 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):  # a few still need new memory, where a small object occupies the freed one
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = page_faults()
print(keep_freed_memory(), returned, page_faults())
"""
    # glibc raises its threshold by itself after the first large tensor, sometimes, unless it is set.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    done, returned, kept = result.stdout.split()
    if done == "False":
        pytest.skip("the C library of this system has no mallopt")
    assert int(kept) < int(returned) / 10


@pytest.mark.parametrize(
    "requested, accelerator, steps, expected",
    [
        ("auto", "cuda", COMPILED_STEPS, True),
        ("auto", "cuda", COMPILED_STEPS - 1, False),
        *(("auto", accelerator, math.inf, False) for accelerator in ("cpu", "mps")),
        *((value, accelerator, 1, value) for value in (True, False) for accelerator in ("cpu", "cuda")),
    ],
)
def test_auto_compiles_long_runs_on_cuda_only(monkeypatch, requested, accelerator, steps, expected):
    monkeypatch.setattr(hardware, "find_spec", lambda name: "found")
    assert resolve_compile(requested, accelerator, steps) is expected
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)  # Triton, which compiles for CUDA, is not installed
    assert resolve_compile(requested, accelerator, steps) is (requested is True)
