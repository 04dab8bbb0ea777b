"""Diagnostics that predict several images at the same time on the CPU."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unet.diagnostics.predictions import MAX_WORKERS, eval_mode, map_images


def make_task(device: str) -> Any:
    @contextmanager
    def forward_context():
        with torch.autocast("cpu", torch.bfloat16):
            yield

    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=forward_context))
    return SimpleNamespace(device=torch.device(device), trainer=trainer, training=False, eval=bool, train=bool)


@pytest.fixture
def set_threads():
    """Return torch.set_num_threads; the number of threads is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (2, 2), (3, 3), (2 * MAX_WORKERS, MAX_WORKERS)])
def test_images_are_computed_in_order_in_the_trainers_precision(set_threads, threads: int, workers: int):
    set_threads(threads)
    barrier = threading.Barrier(workers, timeout=60)  # is passed only if so many threads compute at once
    weight = torch.ones(4, 4, requires_grad=True)

    def compute(number: int) -> tuple[int, torch.Tensor, int, int]:
        barrier.wait()
        return number, weight @ torch.full((4, 1), float(number)), torch.get_num_threads(), threading.get_ident()

    task = make_task("cpu")
    with eval_mode(task):
        results = list(map_images(task, compute, range(3 * workers)))
    numbers, outputs, op_threads, identities = zip(*results, strict=True)
    assert list(numbers) == list(range(3 * workers)) and len(set(identities)) == workers
    assert all(output.dtype == torch.bfloat16 and not output.requires_grad for output in outputs)
    assert set(op_threads) == {threads // workers} and torch.get_num_threads() == threads


def test_an_error_is_raised_and_the_number_of_threads_restored(set_threads):
    set_threads(2)
    task = make_task("cpu")
    with pytest.raises(ZeroDivisionError), eval_mode(task):
        list(map_images(task, lambda number: 1 / number, [2, 1, 0, 1]))
    assert torch.get_num_threads() == 2


def test_another_device_is_used_by_one_thread(set_threads):
    set_threads(2)
    identities = map_images(make_task("meta"), lambda number: threading.get_ident(), range(8))
    assert set(identities) == {threading.get_ident()}
