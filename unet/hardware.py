"""What the machine can do: native bfloat16, and Lightning's precision from it."""

import torch


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


def resolve_precision(requested: str | int | None, accelerator: str) -> str | int | None:
    """``auto`` as ``bf16-mixed`` where that is native and ``32-true`` elsewhere; anything else as it is."""
    if requested != "auto":
        return requested
    return "bf16-mixed" if native_bf16(accelerator) else "32-true"


def device_name(accelerator: str) -> str:
    """The device in words, for the summary and ``metrics.json``."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    if accelerator == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return accelerator
