"""Find the image and mask files of a data set and pair them."""

import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.data.label_map import LabelMap
from unet.data.source import Array, Item, raise_error
from unet.errors import UserError
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import AS_STORED, ReadOptions, open_image


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file, the labels of the mask, and how the image is read; both are read when called."""

    image: Path
    mask: Path
    labels: LabelMap
    options: ReadOptions = AS_STORED

    def __call__(self) -> tuple[Array, Array]:
        target = self.labels.read(self.mask, self.image)
        return self.read_image(target.shape), target

    def read_image(self, size: Sequence[int]) -> Array:
        """Return the image (*S, C) that belongs to a mask of a size."""
        return open_image(self.image, len(size), self.options, size).pixels()


def file_item(image: Path, mask: Path, labels: LabelMap, options: ReadOptions = AS_STORED) -> Item:
    """Return the item of an image file and its mask file."""
    return Item(str(image), FilePair(image, mask, labels, options))


def image_files(folder: Path, on_error: Callable[[UserError], None] = raise_error) -> dict[str, Path]:
    """Return the images of a folder by stem, in natural order; ``on_error`` handles two files with one stem."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=natural_key):
        stem, suffix = name_parts(path)
        if suffix in SUFFIXES and not path.name.startswith("."):
            if stem in files:
                on_error(UserError(f"{path} and {files[stem].name}: two files with one stem; rename or remove one"))
            files[stem] = path
    return files


def natural_key(path: Path) -> tuple[int, str]:
    """Return a sort key that orders 2.png before 10.png."""
    stem, _ = name_parts(path)
    return (int(stem), "") if stem.isdecimal() else (-1, path.name)


def pair_files(
    images: Path,
    masks: Path,
    labels: LabelMap,
    mask_stem: str = "{stem}",
    options: ReadOptions = AS_STORED,
    on_error: Callable[[UserError], None] = raise_error,
) -> dict[str, Item]:
    """Return the items of a folder of images and a folder of masks, by the stem of the image.

    Args:
        images, masks: the folders.
        labels: the labels of the masks' values.
        mask_stem: a pattern for the stem of the mask, such as ``"{stem}_mask"``.
        options: how the images are read.
        on_error: called for an image without a mask, a mask without an image and two files with one stem.
    """
    require_folders([images, masks])
    formats = ", ".join(sorted(SUFFIXES))
    files, mask_files = image_files(images, on_error), image_files(masks, on_error)
    if not files:
        raise UserError(f"{images}: no images (expected {formats})")
    items = {}
    for stem, path in files.items():
        expected = mask_stem.replace("{stem}", stem)
        mask = mask_files.pop(expected, None)
        if mask is None:
            on_error(UserError(f"{path}: no mask {masks / expected}.*; add it or remove the image"))
            continue
        items[stem] = file_item(path, mask, labels, options)
    for mask in mask_files.values():
        on_error(UserError(f"{mask}: a mask without an image in {images}; add it ({formats}) or remove the mask"))
    return items


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason}); expected a text file with one stem per line") from None


def find_installed_file(package: str, name: str, install: str) -> Path:
    """Return the path of a file of an installed package, without importing the package.

    Raises:
        UserError: it is not installed; ``install`` is the command that installs it.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and (path := Path(str(file.locate()))).is_file():
            return path
    raise UserError(f"{name} of {package} is not installed; run: {install}")


def require_folders(folders: Iterable[Path], advice: str = "") -> None:
    """Check that every folder exists. Raises UserError, with ``advice``."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder" + (f"; {advice}" if advice else ""))
