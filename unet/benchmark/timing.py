"""Time several calls in turns, so that ratios within a round hold on a machine whose speed changes."""

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

MIN_TIMING_MS = 50.0
"""Duration of a timing, over which a short call is repeated: the clock and the launch queue of a GPU need it."""

Key = TypeVar("Key", bound=Hashable)
Timings = dict[Key, list[float]]
"""Milliseconds per call in each round."""


def environment() -> dict[str, Any]:
    """Return the name of the CPU or GPU, torch's version, and the number of its CPU threads."""
    gpu = torch.cuda.is_available()
    return {
        "machine": torch.cuda.get_device_name() if gpu else cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """Return the name of the CPU on Linux, elsewhere its capability as torch names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def synchronize() -> None:
    """Wait until the GPU is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_call(call: Callable[[], object], repeats: int) -> float:
    """Return the milliseconds per call over ``repeats`` calls."""
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats


def measure(calls: Mapping[Key, Callable[[], object]], rounds: int, verbose: bool = False) -> Timings[Key]:
    """Time every call once a round, after two calls of each to warm up; each round starts with the next call."""
    keys = list(calls)
    for call in calls.values():
        call()
    warm_ms = {key: time_call(call, 1) for key, call in calls.items()}
    repeats = {key: max(1, math.ceil(MIN_TIMING_MS / max(ms, 1e-3))) for key, ms in warm_ms.items()}
    if verbose:
        seconds = rounds * sum(warm_ms[key] * repeats[key] for key in keys) / 1e3
        print(f"{rounds} rounds, about {seconds:.0f} s ...", file=sys.stderr, flush=True)
    timings: Timings[Key] = {key: [] for key in keys}
    for start in range(rounds):
        for offset in range(len(keys)):
            key = keys[(start + offset) % len(keys)]
            timings[key].append(time_call(calls[key], repeats[key]))
    return timings


def median_ratio(timings: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the ratios to the reference within each round."""
    return statistics.median(a / b for a, b in zip(timings, reference, strict=True))
