"""Times that can be compared on a machine whose speed changes: every call in turns, ratios within a round.

A machine that slows down for a while slows all calls of that round alike and leaves the ratios as they were.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

SAMPLE_MS = 50.0
"""A timing repeats its call until it lasts about this long: the clock and a GPU's launch queue need it."""
BUSY = 1.3
"""Quartiles further apart than this many times tell of other work on the machine."""

Key = TypeVar("Key", bound=Hashable)
Timings = dict[Key, list[float]]
"""Milliseconds per call, one entry a round; entry i of every key belongs to round i."""


def synchronize() -> None:
    """Wait for the device: a GPU's calls return before its work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_call(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds per call over ``repeats`` calls."""
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats


def measure(calls: Mapping[Key, Callable[[], object]], rounds: int, say: bool = False) -> Timings[Key]:
    """Time every call once a round, in turns; each round starts one further on, so none always follows the same one.

    Two calls of each warm up; the second says how often a short call must be repeated to be timed well.
    """
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
    """How many times as long as the reference: the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(timings, reference, strict=True))


def busy_line(timings: Sequence[float], what: str = "this project's steps") -> str | None:
    """A caution where the quartiles of the rounds (ms) of ``what`` lie further apart than ``BUSY`` times."""
    if len(timings) < 4:
        return None
    low, _, high = statistics.quantiles(timings, n=4)
    if high <= BUSY * low:
        return None
    return (
        f"the machine was busy: half of {what} took less than {low:.0f} or more than {high:.0f} ms; "
        f"before quoting any number, run again at a quiet moment"
    )
