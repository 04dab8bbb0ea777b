"""What the machine can do: native bfloat16, Lightning's precision from it, and the memory layout it is fastest in."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.geometry import times

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""torch's name of the layout for a tensor (B, C, *S) of that many axes; one spatial axis has none."""

MAX_THREADS = 1024
"""torch crashes where the system refuses it as many."""


def channels_last(x: Tensor) -> Tensor:
    """x (B, C, *S) laid out channels last where torch has such a layout, contiguous elsewhere."""
    return x.contiguous(memory_format=CHANNELS_LAST.get(x.ndim, torch.contiguous_format))


def to_memory_format(module: nn.Module, layout: Callable[[Tensor], Tensor]) -> nn.Module:
    """The module itself, every parameter and buffer in the given layout.

    ``module.to(memory_format=...)`` would refuse a volume's parameters of four axes, such as one number a channel.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = layout(tensor.data)
    return module


def native_bf16(accelerator: str = "cpu") -> bool:
    """Whether bfloat16 arithmetic is native: CUDA from Ampere on, CPUs with AVX512-bf16 or AMX. Emulation is slower."""
    if accelerator == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    if accelerator == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def accelerator_name(requested: str = "auto") -> str:
    """The accelerator Lightning will take for ``requested``: ``cuda``, ``mps`` or ``cpu`` (others as they are)."""
    if requested in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return requested


def select_device(device: str, threads: int | None) -> str:
    """Set the threads of torch (None: leave them); the device that a command's ``device`` means here.

    Raises:
        UserError: no such device, or no number of threads.
    """
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MAX_THREADS):
        raise UserError(f"threads: expected null or an integer of 1 to {MAX_THREADS}, found {threads!r}")
    if threads:
        torch.set_num_threads(threads)
    found = accelerator_name(device)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(found, False) or (device == "gpu" and found == "cpu"):
        raise UserError(f"device={device}: not here; expected one of auto, {', '.join(k for k in there if there[k])}")
    return found


def resolve_precision(
    requested: str | int | None, accelerator: str, sizes: Sequence[Sequence[int]] = ()
) -> str | int | None:
    """``auto`` as ``bf16-mixed`` where that is native and right, ``32-true`` elsewhere; anything else as it is.

    Args:
        requested: the trainer's setting.
        accelerator: where it will run.
        sizes: of the maps that a training image becomes, level by level.

    Raises:
        UserError: bfloat16 was asked for where it would train on wrong gradients.
    """
    wrong = next((size for size in sizes if wrong_in_bf16(size)), None) if accelerator == "cpu" else None
    if requested == "auto":
        return "bf16-mixed" if native_bf16(accelerator) and wrong is None else "32-true"
    if str(requested).startswith("bf16") and wrong is not None:
        raise UserError(
            f"trainer.precision={requested}: on a CPU, bfloat16 gives wrong gradients on maps that are 2 deep, and a "
            f"level of this network is {times(wrong)}; use trainer.precision=32-true, or crops of another depth"
        )
    return requested


def wrong_in_bf16(size: Sequence[int]) -> bool:
    """Whether the weight gradient of a 3-wide convolution of such a map is garbage in bfloat16 on a CPU.

    Seen in torch 2.15 (oneDNN): on volumes exactly two samples deep it reads memory that was never written.
    """
    return len(size) == 3 and size[0] == 2


def device_name(accelerator: str) -> str:
    """The device in words, for the summary and ``metrics.json``."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return accelerator
