"""What the numbers depend on besides the code."""

import contextlib
from pathlib import Path
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """The machine's processor or GPU, torch's version and its CPU threads."""
    gpu = torch.cuda.is_available()
    return {
        "machine": torch.cuda.get_device_name() if gpu else cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """The processor's name, from where Linux tells it, or how torch sees it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"
