"""Find the image and mask files of a data set and pair them."""

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unet.data.annotations import DrawnShapes
from unet.data.label_map import LabelMap
from unet.data.mask_file import MaskFile
from unet.data.mask_reading import MASK_SUFFIXES, read_mask
from unet.data.patterns import FilePattern, FoundFile
from unet.data.source import Array, Item, raise_error
from unet.errors import UserError
from unet.io.arrays import load_nifti, voxel_grid
from unet.io.channel_files import ChannelReader, open_channels
from unet.io.image_formats import NIFTI, SUFFIXES, name_parts
from unet.io.image_reader import AS_STORED, ImageReader, ReadOptions
from unet.network.geometry import Window, times

OnError = Callable[[UserError], None]


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file; read when called.

    Attributes:
        image, mask: the files.
        labels: the labels of the mask's values.
        options: how the image is read.
        more_channels: further files with channels of the image, which follow those of ``image``.
        shapes: the shapes of the image in a file of annotations of many images; None: ``mask`` is of this image alone.
        name: what identifies it in its data set, such as ``patient1/00``.
        window: the part of the files that is read; empty: all.
        size: the size of the whole image if only a part is read.
    """

    image: Path
    mask: Path
    labels: LabelMap
    options: ReadOptions = AS_STORED
    more_channels: tuple[Path, ...] = ()
    shapes: DrawnShapes | None = field(default=None, repr=False)
    name: str = ""
    window: Window = ()
    size: tuple[int, ...] | None = None

    def __call__(self) -> tuple[Array, Array]:
        target = self.labels(self.read_mask(), self.mask)
        return self.read_image(target.shape), target

    def read_mask(self) -> MaskFile:
        """Return the content of the mask file."""
        if self.shapes is not None:
            return self.shapes.draw()
        return read_mask(self.mask, self.labels.has_colors, self.image, self.window)

    def read_image(self, size: Sequence[int]) -> Array:
        """Return the image (*S, C) of a mask of a size. Raises UserError if files of its channels differ in size."""
        reader = self.open_image(size)
        if self.size is not None and reader.size != self.size:
            raise UserError(
                f"{self.image}: its mask is {times(self.size)}, the image {times(reader.size)}; expected the same size"
            )
        return reader.pixels(self.window)

    def open_image(self, size: Sequence[int]) -> ImageReader | ChannelReader:
        """Open the image that belongs to a mask of a size."""
        files, size = (self.image, *self.more_channels), self.size or size
        return open_channels(files, len(size), options=self.options, size=size)

    def voxel_size(self) -> tuple[float, ...] | None:
        """Return the size of a voxel of a NIfTI file along each axis, in the header's unit; None for other files."""
        if name_parts(self.image)[1] not in NIFTI:
            return None
        return voxel_grid(load_nifti(self.image).affine)[1]


def file_item(image: Path, mask: Path, labels: LabelMap, options: ReadOptions = AS_STORED) -> Item:
    """Return the item of an image file and its mask file."""
    return Item(str(image), FilePair(image, mask, labels, options, name=name_parts(image)[0]))


def image_files(folder: Path, on_error: OnError = raise_error) -> dict[str, Path]:
    """Return the images of a folder by stem, in natural order; ``on_error`` handles two files with one stem."""
    found = FilePattern("{id}.*", SUFFIXES).find(folder)
    return {name: file.path for (_, name, _), file in by_key(found, on_error).items()}


def pair_files(
    images: Path,
    masks: Path,
    labels: LabelMap,
    options: ReadOptions = AS_STORED,
    on_error: OnError = raise_error,
) -> dict[str, Item]:
    """Return the items of a folder of images and a folder of masks with the same stems, by stem.

    Args:
        images, masks: the folders.
        labels: the labels of the masks' values.
        options: how the images are read.
        on_error: called for images without a mask, masks without an image and files with one stem.
    """
    require_folders([images, masks])
    image_pattern, mask_pattern = FilePattern("{id}.*", SUFFIXES), FilePattern("{id}.*", MASK_SUFFIXES)
    found, found_masks = image_pattern.find(images), mask_pattern.find(masks)
    if not found:
        raise UserError(f"{images}: no images (expected {', '.join(sorted(SUFFIXES))})")
    pairs = pair_found(found, found_masks, (), lambda file: masks / f"{file.name}.*", images, on_error)
    return {file.name: file_item(file.path, mask.path, labels, options) for file, mask, _ in pairs}


def pair_found(
    images: Sequence[FoundFile],
    masks: Sequence[FoundFile],
    channels: Sequence[str],
    expected_mask: Callable[[FoundFile], Path],
    expected_images: Path,
    on_error: OnError = raise_error,
) -> list[tuple[FoundFile, FoundFile, tuple[Path, ...]]]:
    """Return image, mask and the further files of channels of each item that has all of them.

    Names that differ in case alone are matched if that is unambiguous.

    Args:
        images, masks: the files found.
        channels: the channels that every image has a file of.
        expected_mask: the path where the mask of an image is expected, for the message.
        expected_images: the place of the images, for the message.
        on_error: called once for all images without a mask, masks without an image, missing channels and files with
            one name.
    """
    first, *others = channels or [""]
    both = all(file.split for file in (*images[:1], *masks[:1]))
    image_of, mask_of = by_key(images, on_error, both), by_key(masks, on_error, both)
    same_case = match_case([key for key in image_of if key[2] in ("", first)], list(mask_of))
    pairs, without_mask, without_channel = [], [], []
    names = dict.fromkeys((split, name) for split, name, _ in image_of)
    used = set()
    for split, name in names:
        files = [image_of.get((split, name, channel)) for channel in (first, *others)]
        file = next(file for file in files if file)
        if missing := [channel for channel, found in zip((first, *others), files, strict=True) if found is None]:
            without_channel.append((file.path, name, missing))
            used.add(same_case.get((split, name, first), (split, name, "")))
            continue
        mask = mask_of.get(key := same_case.get((split, name, first), (split, name, "")))
        if mask is None:
            without_mask.append(file)
            continue
        used.add(key)
        pairs.append((file, mask, tuple(found.path for found in files[1:] if found)))
    for channel in channels:
        lacking = [name for _, name, missing in without_channel if channel in missing]
        if lacking:
            path = next(path for path, name, _ in without_channel if name == lacking[0])
            names = and_more(lacking, "image")
            text = f"{path.parent}: {names}: no file of channel {channel} of data.source.channels"
            on_error(UserError(f"{text}; add it or remove the image"))
    if without_mask:
        names = and_more([str(file.path) for file in without_mask], "image")
        on_error(UserError(f"{names}: no mask {expected_mask(without_mask[0])}; add it or remove the image"))
    if unused := [str(mask.path) for key, mask in mask_of.items() if key not in used]:
        formats = ", ".join(sorted(SUFFIXES))
        text = f"{and_more(unused, 'file')}: a mask without an image in {expected_images}"
        on_error(UserError(f"{text}; add it ({formats}) or remove the mask"))
    return pairs


Key = tuple[str, str, str]
"""Split, name and channel of a file."""


def by_key(files: Iterable[FoundFile], on_error: OnError, use_split: bool = True) -> dict[Key, FoundFile]:
    """Return files by split, name and channel; ``on_error`` is called once for files that have the same."""
    result: dict[Key, FoundFile] = {}
    twice = []
    for file in files:
        key = (file.split if use_split else "", file.name, file.channel)
        if key in result:
            twice.append(f"{file.path} and {result[key].path.name}")
        result[key] = file
    if twice:
        on_error(UserError(f"{and_more(twice, 'pair')}: two files with one name; rename or remove one"))
    return result


def match_case(images: Sequence[Key], masks: Sequence[Key]) -> dict[Key, Key]:
    """Return the key of the mask of each image whose name differs from the mask's in case alone."""
    missing, unused = set(images), set(masks)
    exact = {key for key in images if (key[0], key[1], "") in unused}
    missing, unused = missing - exact, unused - {(key[0], key[1], "") for key in exact}
    folded = Counter((split, name.lower()) for split, name, _ in missing)
    candidates: dict[tuple[str, str], list[Key]] = {}
    for key in unused:
        candidates.setdefault((key[0], key[1].lower()), []).append(key)
    result = {key: (key[0], key[1], "") for key in exact}
    for key in missing:
        short = key[0], key[1].lower()
        if folded[short] == 1 and len(candidates.get(short, [])) == 1:
            result[key] = candidates[short][0]
    return result


def and_more(names: Sequence[str], noun: str) -> str:
    """Return the first name and the number of the others: ``a.png and 11 more images``."""
    others = len(names) - 1
    return names[0] + (f" and {others} more {noun}{'s' * (others > 1)}" if others else "")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason}); expected a text file with one name per line") from None


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
