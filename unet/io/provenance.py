"""The code, versions, machine and memory of a run."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

PROC = Path("/proc/self")
"""What Linux says of this process: psutil knows no peak there."""


ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """The commit this code is at, ``+changes`` where the working tree differs; empty outside a clone."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    revision = git("rev-parse", "HEAD")
    return revision + ("+changes" if revision and git("status", "--porcelain", "--untracked-files=no") else "")


def provenance() -> dict[str, str]:
    """Versions, machine and commit, for ``metrics.json``."""
    packages = ("torch", "lightning", "albumentations", "opencv-python-headless", "numpy")
    return {
        **{f"version/{name}": version(name) for name in packages},
        "version/python": platform.python_version(),
        "machine": platform.machine(),
        "commit": commit(),
    }


def reset_peak_memory() -> None:
    """Start counting anew where the system can (Linux): the jobs of a sweep do not inherit each other's peak."""
    with suppress(OSError):
        (PROC / "clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process since :func:`reset_peak_memory`.

    Where the system counts none (macOS) this is the size now.
    """
    with suppress(OSError):
        line = next(line for line in (PROC / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)
