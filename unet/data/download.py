"""Download of data sets with torchvision: complete or not at all, and never outside their folder."""

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from rich.console import Console

from unet.errors import UserError


def ensure_downloaded(root: Path, folders: Sequence[str], dataset: str, allowed: bool, manual: str) -> None:
    """Download the folders of a data set that are missing in ``root``.

    Archives are extracted in a temporary folder in ``root``; only a complete data set is moved out of it.

    Args:
        root: torchvision's root.
        folders: the folders in it that make up the data set.
        dataset: the class of ``torchvision.datasets`` that downloads, checks and extracts the data set.
        allowed: whether it may download.
        manual: instructions to get the data set without it.

    Raises:
        UserError: a folder is missing and may not, or could not, be downloaded.
    """
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if not missing:
        return
    if not allowed:
        raise UserError(f"{root / missing[0]}: no such folder; {manual}, or set data.source.download=true")
    import torchvision.datasets

    Console(stderr=True).print(f"downloading {', '.join(missing)} to {root}", highlight=False, soft_wrap=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download_") as temporary, contained_extraction():
            getattr(torchvision.datasets, dataset)(temporary, download=True)
            for folder in missing:
                move(Path(temporary) / folder, root / folder)
    except (OSError, RuntimeError, HTTPException, tarfile.TarError) as error:
        raise UserError(f"{root / missing[0]}: cannot be downloaded ({error}); {manual}") from error


@contextmanager
def contained_extraction() -> Iterator[None]:
    """Refuse members of tar files outside their folder, since torchvision extracts without a filter."""
    default = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = default


def move(source: Path, target: Path) -> None:
    """Move a folder in one step, unless another process has already done so."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise
