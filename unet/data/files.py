"""Reading images and masks from files, and saying which file is at fault when that fails."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.source import Array, Item
from unet.errors import UserError, did_you_mean
from unet.labels import IGNORE_INDEX

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


def read_array(path: Path) -> Array:
    """The pixels of an image file as stored: (H, W) or (H, W, C); a palette image gives its indices."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); replace the file or take it out") from None


def read_image(path: Path) -> Array:
    """An image file as (H, W, C); a palette image in its colours."""
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "1", "CMYK", "YCbCr", "LAB", "HSV", "PA"):
                return np.asarray(image.convert("L" if image.mode == "1" else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # read_array says what is wrong
    pixels = read_array(path)
    return pixels[..., None] if pixels.ndim == 2 else pixels


class LabelMap:
    """Turns what a mask file stores into labels.

    Args:
        values: stored value -> class name, or ``ignore``; a value is an integer, or ``"r,g,b"`` for a colour mask.
            None: the stored value is the label.
        classes: class names; their place is the label.
    """

    def __init__(self, values: Mapping[int | str, str] | None, classes: Sequence[str]):
        self.classes = list(classes)
        if values is None:
            names: dict[int | str, str] = dict(enumerate(self.classes)) | {IGNORE_INDEX: "ignore"}
        else:
            names = dict(values)
        self.stored = {stored(key): self.label(name) for key, name in names.items()}
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

    def __call__(self, pixels: Array, path: Path) -> Array:
        """(H, W) or (H, W, C) as stored -> (H, W) uint8 labels. Raises UserError naming ``path``."""
        if pixels.ndim == 3 and not self.colored:
            pixels = grey(pixels, path)
        if pixels.ndim == 3:
            present, inverse = np.unique(pixels[..., :3].reshape(-1, 3), axis=0, return_inverse=True)
            keys: list = [tuple(color) for color in present.tolist()]
        else:
            present, inverse = np.unique(pixels, return_inverse=True)
            keys = present.astype(np.int64).tolist()
        unknown = [key for key in keys if key not in self.stored]
        if unknown:
            raise self.unexpected(unknown, path)
        return np.array([self.stored[key] for key in keys], np.uint8)[inverse].reshape(pixels.shape[:2])

    def unexpected(self, keys: list, path: Path) -> UserError:
        def written(values: Iterable) -> str:
            values = list(values)
            return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")

        return UserError(
            f"{path}: label {written(keys)} is outside the {len(self.classes)} classes (expected "
            f"{written(self.stored)}); correct the mask or map the value in data.source.values"
        )


def stored(key: int | str) -> int | tuple[int, ...]:
    """A key of ``values``: an integer, or a colour written ``"r,g,b"``."""
    try:
        parts = tuple(int(part) for part in str(key).split(","))
    except ValueError:
        parts = ()
    if len(parts) not in (1, 3):
        raise UserError(f'data.source.values: expected an integer or "r,g,b", found {key!r}')
    return parts[0] if len(parts) == 1 else parts


def grey(pixels: Array, path: Path) -> Array:
    """A mask saved as RGB(A) whose channels agree, as one channel."""
    if not (pixels[..., :1] == pixels[..., : min(3, pixels.shape[-1])]).all():
        raise UserError(
            f"{path}: a colour mask, expected labels in one channel; "
            f'map its colours in data.source.values, such as {{"128,0,0": {"NAME"}}}'
        )
    return pixels[..., 0]


def read_pair(image: Path, mask: Path, labels: LabelMap) -> tuple[Array, Array]:
    return read_image(image), labels(read_array(mask), mask)


def image_files(folder: Path) -> dict[str, Path]:
    """Stem -> file, sorted by stem, numbers by value. Raises UserError where two files share a stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=natural):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise UserError(f"{path} and {found[path.stem].name}: two files with one stem; rename or remove one")
            found[path.stem] = path
    return found


def natural(path: Path) -> tuple[int, str]:
    """Sort key with which 2.png comes before 10.png."""
    return (int(path.stem), "") if path.stem.isdecimal() else (-1, path.name)


def pairs(images: Path, masks: Path, labels: LabelMap, mask_stem: str = "{stem}") -> list[Item]:
    """Every image of a folder with the mask of the same stem in another.

    Args:
        mask_stem: the mask's stem from the image's, such as ``"{stem}_mask"``.
    """
    require_folders([images, masks], "")
    found, targets = image_files(images), image_files(masks)
    if not found:
        raise UserError(f"{images}: no images here (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    items = []
    for stem, path in found.items():
        mask = targets.get(mask_stem.format(stem=stem))
        if mask is None:
            raise UserError(f"{path}: no mask {masks / mask_stem.format(stem=stem)}.*; add it or take the image out")
        items.append(Item(str(path), partial(read_pair, path, mask, labels)))
    return items


def require_folders(folders: Iterable[Path], advice: str) -> None:
    """Raise UserError, with ``advice``, unless every folder exists."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder" + (f"; {advice}" if advice else ""))
