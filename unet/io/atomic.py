"""Files and folders that are complete or not there: written to a temporary name, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from unet.errors import UserError

PARTIAL = ".partial"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
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


def remove_partials(folder: Path) -> None:
    """Remove what SIGKILL left of files that were being written; the caller holds the folder."""
    for partial in folder.rglob(f".*{PARTIAL}"):
        if partial.is_file():
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
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
    with atomic_write(path) as file:
        file.write(text.encode())


def replace_block(page: str, begin: str, block: str, end: str) -> str:
    """A page whose text between two marker lines is ``block``. Raises ValueError where a marker is missing."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


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
