"""The device, precision and memory layout of a run."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.network.geometry import times

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""torch's channels-last layout by the number of axes of a tensor (B, C, *S); with one spatial axis there is none."""

MAX_THREADS = 1024
"""The largest valid number of threads: torch crashes if the system refuses to start them."""


def channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, *S) in the channels-last layout, or contiguous where torch has none for its number of axes."""
    return x.contiguous(memory_format=CHANNELS_LAST.get(x.ndim, torch.contiguous_format))


def to_memory_format(module: nn.Module, layout: Callable[[Tensor], Tensor]) -> nn.Module:
    """Convert every parameter and buffer of a module to a layout, in place, and return the module.

    ``module.to(memory_format=...)`` refuses parameters of four axes in a network for volumes.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = layout(tensor.data)
    return module


def native_bf16(accelerator: str = "cpu") -> bool:
    """Return whether bfloat16 is native: CUDA since Ampere, CPUs with AVX512-bf16 or AMX. Emulation is slower."""
    if accelerator == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    if accelerator == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def accelerator_name(requested: str = "auto") -> str:
    """Return the accelerator that Lightning selects for ``auto`` and ``gpu``; other names are returned unchanged."""
    if requested in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return requested


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
LARGEST_KEPT = 2**25
"""The largest ``M_MMAP_THRESHOLD`` that glibc accepts, in bytes."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones; return whether the system can do that.

    glibc (Linux) returns the memory of a freed tensor to the system, which clears it again for the next one: an eighth
    of the time of a training step with the defaults, on a CPU. Tensors above ``LARGEST_KEPT`` are still returned.
    """
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        if sys.platform == "linux":
            return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    return False


def select_device(device: str, threads: int | None) -> str:
    """Set the number of torch's threads, unless None, and return the device's name. Raises UserError if invalid."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise UserError(f"threads: expected null or an integer of 1 to {MAX_THREADS}, found {threads!r}")
    if threads:
        torch.set_num_threads(threads)
    name = accelerator_name(device)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    names = [key for key in available if available[key]]
    if name not in names or (device == "gpu" and name == "cpu"):
        raise UserError(f"device={device}: not available; expected one of auto, {', '.join(names)}")
    return name


def resolve_precision(
    requested: str | int | None, accelerator: str, sizes: Sequence[Sequence[int]] = ()
) -> str | int | None:
    """Return the precision of a run: ``auto`` is ``bf16-mixed`` where native and correct, else ``32-true``.

    ``sizes``: those of the feature maps of a training image. Raises UserError if bfloat16 is requested and would give
    wrong gradients: on a CPU, torch 2.15 (oneDNN) reads uninitialised memory in the weight gradient of a 3-wide
    convolution on a volume of depth 2.
    """
    volumes = [size for size in sizes if accelerator == "cpu" and len(size) == 3]
    unsafe = next((size for size in volumes if size[0] == 2), None)
    if requested == "auto":
        return "bf16-mixed" if native_bf16(accelerator) and unsafe is None else "32-true"
    if str(requested).startswith("bf16") and unsafe is not None:
        raise UserError(
            f"trainer.precision={requested}: on a CPU, bfloat16 gives wrong gradients for feature maps of depth 2, and "
            f"a level of this network has {times(unsafe)}; use trainer.precision=32-true, or crops of another depth"
        )
    return requested


COMPILED_STEPS = 5000
"""The steps from which ``compile=auto`` compiles on a GPU: short runs do not regain the start. Not measured yet."""


def resolve_compile(requested: bool | str, accelerator: str, steps: float) -> bool:
    """Return whether to compile the network for ``steps`` training steps: ``auto`` does on CUDA, in long runs.

    On a CPU, compiled steps took 0.97 to 1.00 of the time of plain ones (torch 2.14, width 16), after 22 s to compile.
    """
    if requested == "auto":
        return accelerator == "cuda" and find_spec("triton") is not None and steps >= COMPILED_STEPS
    return bool(requested)


def device_name(accelerator: str) -> str:
    """Return the device's name for the summary."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' * (threads > 1)}"
    return accelerator
