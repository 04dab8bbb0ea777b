"""Fetching public archives: checked, whole or not at all, and never outside their folder."""

import hashlib
import shutil
import stat
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlparse

from rich.console import Console

from unet.data.samples import progress
from unet.errors import UserError

CHUNK = 2**20
TIMEOUT = 60  # seconds without a byte after which a server counts as gone


@dataclass(frozen=True)
class Archive:
    """A public archive.

    Attributes:
        url: where it is; ``.zip``, or a tar of any compression.
        md5: its checksum, as its publisher or torchvision states it.
        brings: the folder in it that is wanted, such as ``images``.
    """

    url: str
    md5: str
    brings: str

    @property
    def name(self) -> str:
        return PurePosixPath(urlparse(self.url).path).name


def provide(root: Path, archives: Sequence[Archive], download: bool) -> None:
    """See to it that ``root`` holds what every archive brings.

    An archive is downloaded and extracted in a temporary folder in ``root``; only what is complete is moved to its
    place, so an interruption leaves nothing half done.

    Raises:
        UserError: something is missing and may not, or could not, be downloaded; it says how to get it by hand.
    """
    for archive in archives:
        wanted = root / archive.brings
        if wanted.is_dir():
            continue
        if not download:
            raise UserError(f"{wanted}: no such folder; {by_hand(root, archive)}, or set data.source.download=true")
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download_") as folder:
                fetch(archive, root, Path(folder) / archive.name)
                extract(Path(folder) / archive.name, Path(folder) / "extracted")
                settle(Path(folder) / "extracted", archive, wanted)
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the server's answer
            raise UserError(f"{archive.url}: cannot be downloaded ({error}); {by_hand(root, archive)}") from error


def by_hand(root: Path, archive: Archive) -> str:
    return (
        f"download {archive.url} (md5 {archive.md5}) and extract it in {root}, so that {root / archive.brings} exists, "
        f"or say where the data is with data.root=..."
    )


def fetch(archive: Archive, root: Path, path: Path) -> None:
    """Download to ``path`` and compare the checksum."""
    Console(stderr=True).print(f"downloading {archive.url} to {root}", highlight=False, soft_wrap=True)
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as response, path.open("wb") as file:
        chunks = -(-int(response.headers.get("Content-Length", 0)) // CHUNK)
        for chunk in progress(chunks_of(response), chunks, archive.name):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != archive.md5:
        raise UserError(
            f"{archive.url}: damaged or changed on the way, md5 {digest.hexdigest()} instead of {archive.md5}; "
            f"try again, or {by_hand(root, archive)}"
        )


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def settle(extracted: Path, archive: Archive, wanted: Path) -> None:
    """Move what the archive brings to its place, in one step."""
    if not (extracted / archive.brings).is_dir():
        raise UserError(f"{archive.url}: holds no folder {archive.brings}")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    try:
        (extracted / archive.brings).rename(wanted)
    except OSError:
        if not wanted.is_dir():  # else another process was faster
            raise


def extract(archive: Path, folder: Path) -> None:
    """Extract a zip or tar file; its members end inside ``folder``, or it is refused.

    Raises:
        UserError: the file is no archive or is damaged; or a member is absolute, climbs out with ``..``, or is
            anything but a file or a folder (links and devices too).
    """
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            extract_zip(archive, folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter=plain)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive.name}: cannot be extracted ({error})") from error


def plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Tarfile's filter ``data``, and stricter: no links at all, no absolute names made relative."""
    check(member.name, member.isfile() or member.isdir())
    return tarfile.data_filter(member, folder)


def extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            check(member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            target = folder / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def check(name: str, ordinary: bool) -> None:
    """Raise UserError unless an archive's member is an ordinary file or folder with a name that stays inside."""
    path = PureWindowsPath(name)  # knows both separators, and drives
    if not ordinary:
        raise UserError(f"{name}: a link or device in an archive; expected files and folders, nothing was extracted")
    if path.is_absolute() or path.drive or path.root or ".." in path.parts:
        raise UserError(f"{name}: a name in an archive that leads out of its folder; nothing was extracted")
