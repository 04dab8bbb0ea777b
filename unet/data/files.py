"""Reading images and masks from files, and saying which file is at fault when that fails."""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.source import Array, Item, raise_error
from unet.errors import UserError, did_you_mean
from unet.io.image_formats import PICTURES, SHOWN_AS, SUFFIXES, name_parts, read_image, read_numbers, read_picture
from unet.labels import IGNORE_INDEX


class LabelMap:
    """Turns what a mask file stores into labels.

    Args:
        values: stored value -> class name, or ``ignore``; a value is an integer, or ``"r g b"`` for a colour mask.
            None: the stored value is the label, and nothing is ignored.
        classes: class names; their place is the label.
    """

    def __init__(self, values: Mapping[Any, str] | None, classes: Sequence[str]):
        if values is not None and (not isinstance(values, Mapping) or not values):
            raise UserError(
                f"data.source.values: expected a class, or ignore, for every value of the masks, such as "
                f"'{{0: {classes[0]}, 255: {classes[1]}}}', found {values!r}"
            )
        self.classes = list(classes)
        self.stated = values is not None
        names = dict(enumerate(self.classes)) if values is None else values
        self.stored: dict[Any, int] = {parse_value(key): self.label(name) for key, name in names.items()}
        self.colored = any(isinstance(key, tuple) for key in self.stored)

    def label(self, name: str) -> int:
        if name == "ignore":
            return IGNORE_INDEX
        if name not in self.classes:
            raise UserError(
                f"data.source.values: unknown class {name!r}{did_you_mean(str(name), self.classes)} "
                f"(valid: {', '.join(self.classes)}, ignore)"
            )
        return self.classes.index(name)

    def read(self, path: Path) -> Array:
        """A mask file as labels (*S)."""
        pixels, spatial_dims = self.pixels(path)
        return self(pixels, path, spatial_dims)

    def pixels(self, path: Path) -> tuple[Array, int]:
        """What a mask file stores, (*S) or (*S, C), and how many axes are spatial.

        Where colours are mapped, a palette image is in its colours. An array has no axis but spatial ones, unless
        colours are mapped; an axis of one sample after a NIfTI's three is none.
        """
        if name_parts(path)[1] in PICTURES:
            indices = ("1",) if self.colored else ("1", "P", "PA")
            pixels, spatial_dims = read_picture(
                path, lambda mode: mode if mode in indices else SHOWN_AS.get(mode, mode)
            )
        else:
            pixels = read_numbers(path)
            pixels = pixels[..., 0] if pixels.ndim == 4 and pixels.shape[-1] == 1 else pixels
            spatial_dims = pixels.ndim - 1 if self.colored and pixels.shape[-1] in (3, 4) else pixels.ndim
        if not 1 <= spatial_dims <= 3:
            shape = " x ".join(map(str, pixels.shape))
            raise UserError(f"{path}: a mask of {shape}, expected one to three axes and no channels")
        return pixels, spatial_dims

    def __call__(self, pixels: Array, path: Path, spatial_dims: int = 2) -> Array:
        """(*S) or (*S, C) as stored -> (*S) uint8 labels. Raises UserError naming ``path``."""
        key: Callable[[Any], Any] = int_if_integral
        if pixels.ndim > spatial_dims and self.colored:
            pixels, key = pack_rgb(pixels), unpack_rgb
        elif pixels.ndim > spatial_dims:
            pixels = require_grayscale(pixels, path)
        present, places = unique_values(pixels)
        keys = [key(value) for value in present.tolist()]
        unknown = [key for key in keys if key not in self.stored]
        if unknown:
            raise UserError(
                f"{path}: label {format_values(unknown)} is outside the {len(self.classes)} classes (expected "
                f"{format_values(self.stored)}); {self.advice(keys)}"
            )
        return np.array([self.stored[key] for key in keys], np.uint8)[places].reshape(pixels.shape)

    def advice(self, present: list) -> str:
        """Return what to do about a mask that holds ``present``; for the usual encodings, the argument to add."""
        if not self.stated and len(self.classes) == 2 and set(present) <= {0, 255}:
            meaning = dict(zip((0, 255), self.classes, strict=True))
            condition = " and ".join(f"{value} is {name}" for value, name in meaning.items())
        elif not self.stated and set(present) - set(self.stored) == {255}:
            meaning = {**dict(enumerate(self.classes)), 255: "ignore"}
            condition = "255 is unlabelled"
        else:
            return "correct the mask (data=folder can also map values, with data.source.values)"
        entries = ", ".join(f"{value}: {name}" for value, name in meaning.items())
        return f"if {condition}, add 'data.source.values={{{entries}}}'"


def parse_value(key: int | str) -> int | tuple[int, ...]:
    """A key of ``values``: an integer, or a colour written ``"r g b"`` (commas will do as well)."""
    try:
        parts = tuple(int(part) for part in str(key).replace(",", " ").split())
    except ValueError:
        parts = ()
    if len(parts) not in (1, 3):
        raise UserError(f'data.source.values: expected an integer or "r g b", found {key!r}')
    return parts[0] if len(parts) == 1 else parts


def format_values(keys: Iterable, most: int = 12) -> str:
    """The first keys, as they are written in ``values``."""
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in keys]
    return ", ".join(names[:most] + ["..."] * (len(names) > most))


def unique_values(pixels: Array) -> tuple[Array, Array]:
    """The values that occur, ascending, and for each pixel which of them it has; 8-bit ones are counted, not sorted."""
    if pixels.dtype != np.uint8:
        return np.unique(pixels, return_inverse=True)
    occurs = np.bincount(pixels.ravel(), minlength=256) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[pixels]


def int_if_integral(value: float) -> int | float:
    """A stored value as an integer where it is one; a mask of 0.5 is not to be read as 0."""
    return int(value) if float(value).is_integer() else value


def pack_rgb(pixels: Array) -> Array:
    """Colours (*S, 3 or more) as one integer each."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def unpack_rgb(packed: int) -> tuple[int, int, int]:
    return packed >> 16, packed >> 8 & 255, packed & 255


def require_grayscale(pixels: Array, path: Path) -> Array:
    """A mask saved as RGB(A) whose channels agree, as one channel."""
    shown = to_grayscale(pixels)
    if shown is None:
        colors = [unpack_rgb(value) for value in np.unique(pack_rgb(pixels)).tolist()]
        entries = ", ".join(f"{format_values([color])}: NAME" for color in colors[:12])
        raise UserError(
            f"{path}: a colour mask of {len(colors)} colours, expected labels in one channel; say which class each "
            f"colour is (or ignore) with 'data.source.values={{{entries}{', ...' if len(colors) > 12 else ''}}}'"
        )
    return shown


def to_grayscale(pixels: Array) -> Array | None:
    """Grey (*S) of pixels (*S, C), whatever their alpha; None where their colours are none."""
    shown = pixels[..., :1] if pixels.shape[-1] < 3 else pixels[..., :3]
    return shown[..., 0] if (shown == shown[..., :1]).all() else None


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file, read when called.

    Attributes:
        image, mask: the files.
        labels: what the mask's values mean.
        mode: a Pillow mode to which the image is converted.
    """

    image: Path
    mask: Path
    labels: LabelMap
    mode: str | None = None

    def __call__(self) -> tuple[Array, Array]:
        target = self.labels.read(self.mask)
        return read_image(self.image, self.mode, target.ndim), target


def file_item(image: Path, mask: Path, labels: LabelMap, mode: str | None = None) -> Item:
    """An image file and its mask file, read when asked for."""
    return Item(str(image), FilePair(image, mask, labels, mode))


def image_files(folder: Path, on_error: Callable[[UserError], None] = raise_error) -> dict[str, Path]:
    """Stem -> file, sorted by stem, numbers by value; ``on_error`` is called of two files that share a stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=natural_key):
        stem, suffix = name_parts(path)
        if suffix in SUFFIXES and not path.name.startswith("."):
            if stem in found:
                on_error(UserError(f"{path} and {found[stem].name}: two files with one stem; rename or remove one"))
            found[stem] = path
    return found


def natural_key(path: Path) -> tuple[int, str]:
    """Sort key with which 2.png comes before 10.png."""
    stem, _ = name_parts(path)
    return (int(stem), "") if stem.isdecimal() else (-1, path.name)


def pair_files(
    images: Path,
    masks: Path,
    labels: LabelMap,
    mask_stem: str = "{stem}",
    mode: str | None = None,
    on_error: Callable[[UserError], None] = raise_error,
) -> dict[str, Item]:
    """Stem -> item, for every image of a folder and the mask of the same stem in another.

    Args:
        images, masks: the folders.
        labels: what the masks' values mean.
        mask_stem: the mask's stem from the image's, such as ``"{stem}_mask"``.
        mode: a Pillow mode to which every image is converted.
        on_error: told of an image without a mask, of a mask without an image and of two files with one stem; raises.
    """
    require_folders([images, masks])
    found, targets = image_files(images, on_error), image_files(masks, on_error)
    if not found:
        raise UserError(f"{images}: no images here (looked for {', '.join(sorted(SUFFIXES))})")
    items = {}
    for stem, path in found.items():
        expected = mask_stem.replace("{stem}", stem)
        mask = targets.pop(expected, None)
        if mask is None:
            on_error(UserError(f"{path}: no mask {masks / expected}.*; add it or take the image out"))
            continue
        items[stem] = file_item(path, mask, labels, mode)
    for mask in targets.values():
        formats = ", ".join(sorted(SUFFIXES))
        on_error(UserError(f"{mask}: a mask without an image in {images}; add it ({formats}) or take the mask out"))
    return items


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without blanks around them, empty ones left out."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"{path}: cannot be read as a list ({told}); expected a text file with a stem a line") from None


def find_installed_file(package: str, name: str, install: str) -> Path:
    """Return where pip put a file that a package ships, without importing the package.

    Raises:
        UserError: it is not there; ``install`` is the command that brings it.
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
    """Raise UserError, with ``advice``, unless every folder exists."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder" + (f"; {advice}" if advice else ""))
