"""Measure the memory that a forward pass saves for the backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def track_saved_tensors(record: Callable[[int], None], known: Iterable[Tensor] = ()) -> Iterator[None]:
    """Call ``record`` with the bytes of every storage that autograd saves within the context, once each.

    The storages of ``known``, such as parameters and buffers, are left out. The graph cannot be run backward.
    """
    addresses = {tensor.untyped_storage()._cdata for tensor in known}
    storages = []  # kept alive, because the address of a freed storage could be reused

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in addresses:
            addresses.add(storage._cdata)
            storages.append(storage)
            record(storage.nbytes())

    with saved_tensors_hooks(pack, lambda packed: packed):
        yield


def saved_tensor_bytes(call: Callable[[], object], known: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a forward pass saves for the backward pass, except the storages of ``known``."""
    saved: list[int] = []
    with track_saved_tensors(saved.append, known):
        call()
    return sum(saved)


def cuda_peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak GPU memory of ``call`` in bytes, less what was allocated before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - allocated
