"""Write files and folders atomically: to a temporary name that is then renamed."""

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
    """Open a binary file that is renamed to ``path`` once it is complete and on the disk; remove it after an error.

    An OSError of writing names ``path``.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # where the disk has become read-only, or is gone
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_partials(folder: Path) -> None:
    """Remove the files that a killed process was writing; the caller has locked the folder."""
    for partial in folder.rglob(f".*{PARTIAL}"):
        if partial.is_file():
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder that is renamed to ``path`` once it is complete; remove it after an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(folder: Path, key: str) -> None:
    """Make the folder of a config's ``key``, and those above it. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be made ({error.strerror}); choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old text or the new one."""
    with atomic_write(path) as file:
        file.write(text.encode())


def replace_block(page: str, begin: str, block: str, end: str) -> str:
    """Replace the text between two marker lines by ``block``. Raises ValueError where a marker is missing."""
    head, tail = page.split(begin)
    return f"{head}{begin}\n{block}\n{end}{tail.split(end)[1]}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as a JSON file, atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, empty where there is no file. Raises UserError where it holds no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        reason = f"found {str(values)[:40]}"
    except (OSError, ValueError, RecursionError) as error:
        values, reason = None, error.strerror if isinstance(error, OSError) else str(error)
    if not isinstance(values, dict):
        raise UserError(f"{path}: cannot be read as a JSON object ({reason}); repair it, or remove it")
    return values
