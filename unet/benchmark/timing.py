"""Timing of several calls in turns, so that ratios within a round hold on a machine whose speed changes."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

SAMPLE_MS = 50.0
"""Duration of one timing, which repeats a short call: the clock and the launch queue of a GPU need it."""

Key = TypeVar("Key", bound=Hashable)
Timings = dict[Key, list[float]]
"""Milliseconds per call in each round."""


def synchronize() -> None:
    """Wait until the GPU is done."""
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


def measure(calls: Mapping[Key, Callable[[], object]], rounds: int, say: bool = False) -> Timings[Key]:
    """Time every call once a round, after two calls of each to warm up; each round starts with the next call."""
    keys = list(calls)
    for call in calls.values():
        call()
    warm = {key: time_call(call, 1) for key, call in calls.items()}
    repeats = {key: max(1, math.ceil(SAMPLE_MS / max(ms, 1e-3))) for key, ms in warm.items()}
    if say:
        seconds = rounds * sum(warm[key] * repeats[key] for key in keys) / 1e3
        print(f"{rounds} rounds, about {seconds:.0f} s ...", file=sys.stderr, flush=True)
    timings: Timings[Key] = {key: [] for key in keys}
    for start in range(rounds):
        for place in range(len(keys)):
            key = keys[(start + place) % len(keys)]
            timings[key].append(time_call(calls[key], repeats[key]))
    return timings


def median_ratio(timings: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the ratios to the reference within each round."""
    return statistics.median(a / b for a, b in zip(timings, reference, strict=True))
