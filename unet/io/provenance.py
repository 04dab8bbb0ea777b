"""The commit, versions, machine and peak memory of a run."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
"""The repository, or the folder of an installed package."""
PROC = Path("/proc/self")  # on Linux psutil has no peak memory


def commit() -> str:
    """Return the commit of this code, ``+changes`` where the working tree differs; empty outside a clone.

    An installed package may lie within another repository, whose commit says nothing about it.
    """
    if not (ROOT / ".git").exists():
        return ""

    def git(*args: str) -> str:
        command = ["git", "-C", str(ROOT), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def provenance() -> dict[str, str]:
    """Return versions, machine and commit, for ``metrics.json``."""
    packages = ("torch", "lightning", "albumentations", "opencv-python-headless", "numpy")
    return {
        **{f"version/{name}": version(name) for name in packages},
        "version/python": platform.python_version(),
        "machine": platform.machine(),
        "commit": commit(),
    }


def reset_peak_memory() -> None:
    """Reset the peak memory where the system can (Linux), so that a job's peak is its own."""
    with suppress(OSError):
        (PROC / "clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process since :func:`reset_peak_memory`.

    Where the system has no peak (macOS) this is the current size.
    """
    with suppress(OSError):
        line = next(line for line in (PROC / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)
