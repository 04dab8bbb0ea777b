"""What a forward pass keeps for the backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def noting_kept(note: Callable[[int], None], known: Iterable[Tensor] = ()) -> Iterator[None]:
    """While it lasts, call ``note`` with the bytes of every storage that is kept, once each.

    A graph made meanwhile cannot be run backward: it keeps no tensor, as one that kept its own output would never be
    freed.

    Args:
        note: takes the bytes of one storage, at the moment it is kept.
        known: tensors that are there anyway, parameters and buffers: their storages do not count.
    """
    seen = {tensor.untyped_storage()._cdata for tensor in known}
    alive = []  # a storage that is gone could lend its address to the next one

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            alive.append(storage)
            note(storage.nbytes())

    with saved_tensors_hooks(pack, lambda nothing: nothing):
        yield


def kept_bytes(call: Callable[[], object], known: Iterable[Tensor] = ()) -> int:
    """Bytes that ``call``, a forward pass, keeps for the backward pass, beyond the storages of ``known``."""
    kept: list[int] = []
    with noting_kept(kept.append, known):
        call()
    return sum(kept)


def cuda_peak_bytes(call: Callable[[], object]) -> int:
    """Bytes on the GPU, at the worst moment of ``call``, beyond what was allocated before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
