"""Images, volumes or sequences and their masks, found by patterns of file names and divided into splits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unet.data.annotations import read_coco
from unet.data.class_names import check_classes, class_colors, classes_in
from unet.data.files import FilePair, pair_found, require_folders
from unet.data.label_map import LabelMap
from unet.data.layouts import advise_layout
from unet.data.mask_reading import MASK_SUFFIXES
from unet.data.patterns import FilePattern, FoundFile, split_of_name, visible
from unet.data.source import SPLITS, Item, Source
from unet.data.splits import DEFAULT_SPLITS, SplitRules
from unet.data.windows import check_window_size, divide_item
from unet.errors import UserError
from unet.io.image_formats import SUFFIXES
from unet.io.image_reader import ReadOptions
from unet.io.tiff import PAGES

MODES = ("L", "RGB", "RGBA")


class Folder(Source):
    """A data set of images and masks in folders.

    Without ``{split}`` in the patterns, the images below ``root`` are divided by ``splits``; if there are none, but a
    folder ``train`` in ``root``, the patterns are relative to the folders of the splits. The number of axes of the
    masks distinguishes sequences, images and volumes.

    Args:
        root: the folder.
        classes: class names; their index is the label. None: the names in ``values``, in that order.
        colors: one ``[r, g, b]`` per class; None: those of the colour masks, or a palette.
        values: value of the masks -> class name or ``ignore``; see :class:`unet.data.label_map.LabelMap`.
        image, mask: patterns of the files below ``root``; see :class:`unet.data.patterns.FilePattern`. ``mask`` without
            ``{id}`` is one COCO file for all images (or, with ``{split}``, one for each split).
        channels: the texts of ``{channel}`` in ``image``: one file for each, in the order of the channels.
        mode: a Pillow mode (``L``, ``RGB`` or ``RGBA``) to which every image is converted; None: no conversion.
        nodata: a value of the images that stands for no data, besides NaN and the value that a GeoTIFF declares. Such
            pixels are replaced by the mean, and their labels are ignored. ``none``: there is no such value, not even a
            declared one.
        pages: ``channels`` or ``slices``: what the pages of a TIFF are; None: as its metadata say, or else slices.
        splits: for each split a text file of names (in ``root`` or the working directory), or its fraction of the
            images that are in no list, or null. Images are assigned at random.
        group: a regular expression searched in the name; images with the same first group (a patient, a video) are
            always in the same split.
        fold: the images of train and val are divided into ``folds`` equal parts, of which this one is val and the
            others are train; None: as ``splits`` says. Test images are the same for every fold.
        folds: the number of parts.
        split_seed: seeds the assignment of images to splits and folds; it is not the run's seed.
        window_size: images with more pixels along an axis are divided into windows of at most this size along every
            axis, each an item of the split of its image, so that they need not fit into memory. They must be TIFF, .npy
            or .nii files that can be read in parts. None: images are read whole.

    The name of an image is its ``{id}``, after the sub-folders that ``**`` matched: ``patient1/00``.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
        values: Mapping[Any, str] | None = None,
        image: str = "images/{id}.*",
        mask: str = "masks/{id}.*",
        channels: Sequence[str] | None = None,
        mode: str | None = None,
        nodata: float | str | None = None,
        pages: str | None = None,
        splits: Mapping[str, float | str | None] = DEFAULT_SPLITS,
        group: str | None = None,
        fold: int | None = None,
        folds: int = 5,
        split_seed: int = 0,
        window_size: int | None = None,
    ):
        if not isinstance(root, str):
            raise UserError(f"data.root: expected a folder, found {root!r}")
        self.root = Path(root).expanduser()
        self.classes = check_classes(classes if classes is not None else classes_in(values))
        self.labels = LabelMap(values, self.classes)
        self.colors = class_colors(colors, self.labels)
        self.channels = check_channels(channels, image)
        self.image, self.mask, self.coco = compile_patterns(image, mask, self.channels)
        self.channel_file = self.image.text.rpartition("/")[2] if self.channels else None
        if mode is not None and mode not in MODES:
            raise UserError(f"data.source.mode: expected null or one of {', '.join(MODES)}, found {mode!r}")
        if nodata != "none" and (not isinstance(nodata, int | float | None) or isinstance(nodata, bool)):
            raise UserError(f"data.source.nodata: expected a number, such as -9999, none or null, found {nodata!r}")
        if pages is not None and pages not in PAGES:
            raise UserError(f"data.source.pages: expected null or one of {', '.join(PAGES)}, found {pages!r}")
        number = float(nodata) if isinstance(nodata, int | float) else None
        self.read_options = ReadOptions(mode, number, nodata != "none", pages)
        self.window_size = check_window_size(window_size)
        self.rules = SplitRules(self.root, splits, group, fold, folds, split_seed)

    @cached_property
    def spatial_dims(self) -> int:  # type: ignore[override]
        """Return the number of axes of the first mask; the others are checked when they are read."""
        first = next(iter(self.items.values()))[0].read
        assert isinstance(first, FilePair)
        return first.read_mask().spatial_dims

    def load_splits(self) -> dict[str, list[Item]]:
        pairs = self.pairs()
        if "" in pairs:
            items = pairs[""]
            splits = {split: {name: items[name] for name in names} for split, names in self.rules.divide(items).items()}
        else:
            self.rules.check_split_folders(pairs)
            splits = {split: items for split, items in pairs.items() if split not in self.rules.left_out}
        for split in ("train", "val"):
            if not splits.get(split):
                found = ", ".join(f"{len(items)} {name}" for name, items in splits.items())
                raise UserError(
                    f"{self.root}: no images for {split}; training needs train and val (data.source.splits)"
                    + (f"; found {found}" if "" not in pairs else "")
                )
        self.rules.check_groups(splits)
        return {split: self.windows(splits[split].values()) for split in SPLITS if splits.get(split)}

    def all_items(self) -> list[Item]:
        return self.windows(item for items in self.pairs().values() for item in items.values())

    def windows(self, items: Iterable[Item]) -> list[Item]:
        """Return the windows of large images, and the other items, in order."""
        length = self.window_size
        return [part for item in items for part in (divide_item(item, length) if length else [item])]

    def group_of(self, item: Item) -> str:
        assert isinstance(item.read, FilePair)
        return self.rules.group_of(item.read.name) if self.rules.group else str(item.read.image)

    def pairs(self) -> dict[str, dict[str, Item]]:
        """Return the items by split and name; the split is empty if the folders have none.

        Raises:
            UserError: less than half of the images have a mask; the message has the patterns that would fit.
        """
        require_folders([self.root], "set data.root=...")
        image_pattern, mask_pattern = self.patterns_of_root()
        images = image_pattern.find(self.root)
        masks = self.coco_masks(mask_pattern, images) if self.coco else mask_pattern.find(self.root)
        mask_paths = {mask.path for mask in masks}
        images = [file for file in images if file.path not in mask_paths]  # side by side, both may match
        place = self.root / str(Path(image_pattern.text).parent)
        errors: list[UserError] = []
        pairs = pair_found(
            images, masks, self.channels, lambda file: self.root / mask_pattern.path_of(file), place, errors.append
        )
        if 2 * len(pairs) * max(1, len(self.channels)) < len(images) or not pairs:
            raise UserError(advise_layout(self.root, self.image, self.mask, len(images), errors[:1]))
        for error in errors:
            self.on_error(error)
        items: dict[str, dict[str, Item]] = {}
        for file, mask, more in pairs:
            read = FilePair(file.path, mask.path, self.labels, self.read_options, more, mask.shapes, file.name)
            items.setdefault(file.split or mask.split, {})[file.name] = Item(str(file.path), read)
        return items

    def patterns_of_root(self) -> tuple[FilePattern, FilePattern]:
        """Return the patterns of images and masks, in the folders of the splits if the root has those instead."""
        if self.image.has_split or self.mask.has_split:
            return self.image, self.mask
        if any(split_of_name(path.name) == "train" for path in visible(self.root)):
            below = self.image.below("{split}"), self.mask.below("{split}")
            if (self.image.text.startswith("**/") or not self.image.find(self.root)) and below[0].find(self.root):
                return below
        return self.image, self.mask

    def coco_masks(self, pattern: FilePattern, images: Sequence[FoundFile]) -> list[FoundFile]:
        """Return the masks in COCO files: of each image that they name, and of the names without an image."""
        masks = []
        for file in pattern.find(self.root):
            shapes_of = read_coco(file.path)
            names = Counter(Path(name).name for name in shapes_of)
            by_name = {Path(name).name: name for name in shapes_of if names[Path(name).name] == 1}
            for image in images:
                path = image.path.relative_to(self.root).as_posix()
                name = next((path[start:] for start in starts_of_names(path) if path[start:] in shapes_of), None)
                name = by_name.get(image.path.name) if name is None else name
                if name in shapes_of and (not file.split or image.split in ("", file.split)):
                    masks.append(FoundFile(file.path, image.name, image.split or file.split, "", shapes_of.pop(name)))
            masks += [FoundFile(file.path / name, name, file.split) for name in shapes_of]
        return masks


def starts_of_names(path: str) -> list[int]:
    """Return the positions in a path where a folder or file name starts."""
    return [0, *(position + 1 for position, character in enumerate(path) if character == "/")]


def check_channels(channels: Sequence[str] | None, image: str) -> tuple[str, ...]:
    """Return the channels as texts. Raises UserError unless they are different and ``image`` has ``{channel}``."""
    if channels is None and not (isinstance(image, str) and "{channel}" in image):
        return ()
    names = tuple(map(str, channels)) if isinstance(channels, Sequence) and not isinstance(channels, str) else ()
    if not names or len(set(names)) < len(names) or not all(names) or "{channel}" not in str(image):
        raise UserError(
            f'data.source.channels: expected a list of different texts, such as ["0000","0001"], and '
            f"{{channel}} in data.source.image, found {channels!r} and {image!r}"
        )
    return names


def compile_patterns(image: str, mask: str, channels: Sequence[str]) -> tuple[FilePattern, FilePattern, bool]:
    """Return the patterns of images and of masks, and whether the latter is of COCO files. Raises UserError."""
    is_coco = isinstance(mask, str) and mask.lower().endswith(".json") and "{id}" not in mask
    images = FilePattern(image, SUFFIXES, channels, "data.source.image")
    masks = FilePattern(mask, MASK_SUFFIXES, (), "data.source.mask", has_id=not is_coco)
    if masks.has_channel or images.text == masks.text or (not is_coco and ("**" in image) != ("**" in mask)):
        raise UserError(
            f"data.source.mask: expected a pattern other than data.source.image, without {{channel}}, and ** in both "
            f"or in none, found {image!r} and {mask!r}"
        )
    return images, masks, is_coco
