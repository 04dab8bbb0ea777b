"""What a run leaves behind: whole files, or none, that say what was run and how it went."""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import psutil
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unet.errors import UserError

PROC = Path("/proc/self")
"""What Linux says of this process: psutil knows no peak there."""

ROOT = Path(__file__).resolve().parents[2]
CONFIG, STATUS, METRICS = "config.yaml", "status.json", "metrics.json"
CHECKPOINTS, CONFUSIONS = "checkpoints", "confusions.npz"
BEST, LAST = "best.ckpt", "last.ckpt"
PARTIAL = ".partial"
SWEEP = "sweep.json"
"""In a sweep's folder: the commands that ran there, and the overrides of every job by the name of its folder."""


RUNTIME_KEYS = (
    *("ckpt_path", "resume", "threads", "isolate", "retry_failed", "diagnostics", "pictures", "feature_maps", "hydra"),
    "halve_batch",  # of older runs
    *("trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.profiler", "trainer.model_registry"),
)
"""Config keys that say how a run is launched, logged and shown. They are no part of what is trained: two runs that
differ in these alone are the same run, and no report compares them."""


def is_runtime_key(key: str) -> bool:
    """Return whether a dotted config key, or one above it, is one of :data:`RUNTIME_KEYS`."""
    return any(f"{key}.".startswith(f"{name}.") for name in RUNTIME_KEYS)


def flatten(config: Mapping[Any, Any], operators: bool = False, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key; an empty mapping is a value.

    Args:
        config: plain containers.
        operators: keep a mapping with a ``name`` below the top level as one value, such as an operator's options.
        prefix: what every key begins with.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and not (operators and prefix and "name" in value):
            flat |= flatten(value, operators, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def run_config(folder: Path) -> DictConfig:
    """The resolved config a run left. Raises UserError where there is none, or none that can be read."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the folder of a finished run, which holds {METRICS}")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); expected the config of a run"
        ) from None
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: expected the config of a run, found a list")
    return config


def claim(folder: Path, ckpt_path: str | None) -> None:
    """Refuse a folder that holds another run: nothing is overwritten unless a checkpoint in it is being resumed."""
    if ckpt_path is not None and not Path(ckpt_path).is_file():
        raise UserError(f"ckpt_path={ckpt_path}: no such file; expected a checkpoint such as outputs/.../last.ckpt")
    resuming = ckpt_path is not None and folder.resolve() in Path(ckpt_path).resolve().parents
    if not resuming and ((folder / METRICS).exists() or any((folder / CHECKPOINTS).glob("*.ckpt"))):
        raise UserError(
            f"{folder} already holds a run; choose another hydra.run.dir, or resume it with "
            f"{shlex.quote(f'ckpt_path={folder / CHECKPOINTS / LAST}')}"
        )


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` only once it is complete and on the disk; nothing is left of a failed one.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # on a disk that has become read-only, or is gone
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def forget(folder: Path) -> None:
    """Remove what a run left that never came to its first checkpoint, and nothing else: it begins again."""
    for pattern in ("events.out.tfevents.*", "error.txt"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def sweep_up(folder: Path) -> None:
    """Remove what SIGKILL left of files that were being written; the caller holds the folder."""
    for partial in folder.rglob(f".*{PARTIAL}"):
        if partial.is_file():
            partial.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that becomes it only once it is complete; nothing is left of a failed one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(folder: Path, key: str) -> None:
    """Make a folder that a config's ``key`` names, and those above it; UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be made ({error.strerror}); choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads ``path`` finds the old text or the new one, never half of one."""
    with whole(path) as file:
        file.write(text.encode())


def with_block(page: str, begin: str, block: str, end: str) -> str:
    """A page whose text between two marker lines is ``block``. Raises ValueError where a marker is missing."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_status(folder: Path, state: str, reason: str = "", command: Sequence[str] = ()) -> None:
    """Write ``running``, ``done``, ``failed`` or ``interrupted``, the reason, and the run's command.

    Args:
        folder: the run's.
        state: how far it is.
        reason: one line.
        command: the words that started it; none: those of the state before.
    """
    command = list(command) or read_json(folder / STATUS).get("command", [])
    write_json(folder / STATUS, {"state": state, "reason": reason, "command": command})


def read_json(path: Path) -> dict[str, Any]:
    """The values of a JSON file, empty where there is none. Raises UserError where it holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        found, told = None, error.strerror if isinstance(error, OSError) else str(error)
    else:
        told = f"found {str(found)[:40]}"
    if not isinstance(found, dict):
        raise UserError(f"{path}: cannot be read as names and values in JSON ({told}); repair it, or remove it")
    return found


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


def minutes(seconds: float) -> str:
    """``75`` -> ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
