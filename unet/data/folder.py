"""Images, volumes or sequences and their masks, found by patterns of file names and divided into splits."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.annotations import read_coco
from unet.data.files import FilePair, pair_found, read_lines, require_folders
from unet.data.label_map import LabelMap, format_values
from unet.data.layouts import advise_layout
from unet.data.mask_reading import MASK_SUFFIXES
from unet.data.patterns import FilePattern, FoundFile, split_of_name, visible
from unet.data.source import PALETTE, SPLITS, Color, Item, Source
from unet.errors import UserError, did_you_mean
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import ReadOptions
from unet.io.tiff import PAGES
from unet.labels import IGNORE_INDEX

MODES = ("L", "RGB", "RGBA")
DEFAULT_SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


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
    ):
        if not isinstance(root, str):
            raise UserError(f"data.root: expected a folder, found {root!r}")
        self.root = Path(root).expanduser()
        self.classes = check_classes(classes if classes is not None else classes_in(values))
        self.labels = LabelMap(values, self.classes)
        self.colors = class_colors(colors, self.labels)
        self.channels = check_channels(channels, image)
        self.image, self.mask, self.coco = compile_patterns(image, mask, self.channels)
        if mode is not None and mode not in MODES:
            raise UserError(f"data.source.mode: expected null or one of {', '.join(MODES)}, found {mode!r}")
        if nodata != "none" and (not isinstance(nodata, int | float | None) or isinstance(nodata, bool)):
            raise UserError(f"data.source.nodata: expected a number, such as -9999, none or null, found {nodata!r}")
        if pages is not None and pages not in PAGES:
            raise UserError(f"data.source.pages: expected null or one of {', '.join(PAGES)}, found {pages!r}")
        number = float(nodata) if isinstance(nodata, int | float) else None
        self.read_options = ReadOptions(mode, number, nodata != "none", pages)
        self.splits = check_splits(splits)
        self.left_out = [split for split, rule in splits.items() if not rule]
        self.group = compile_group(group)
        self.fold, self.folds, self.split_seed = check_folds(fold, folds, split_seed)
        if fold is not None and (lists := [split for split in ("train", "val") if isinstance(splits.get(split), str)]):
            raise UserError(
                f"data.source.fold={fold}: divides the images of train and val, but data.source.splits.{lists[0]} is a "
                f"list; leave one of them out"
            )

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
            splits = {split: {name: items[name] for name in names} for split, names in self.divide(items).items()}
        else:
            self.check_rules_of_folders(pairs)
            if self.fold is not None:
                raise UserError(
                    f"data.source.fold={self.fold}: the folders of {self.root} are the splits already "
                    f"({', '.join(pairs)}); put all images into one folder, or leave the fold out"
                )
            splits = {split: items for split, items in pairs.items() if split not in self.left_out}
        for split in ("train", "val"):
            if not splits.get(split):
                found = ", ".join(f"{len(items)} {name}" for name, items in splits.items())
                raise UserError(
                    f"{self.root}: no images for {split}; training needs train and val (data.source.splits)"
                    + (f"; found {found}" if "" not in pairs else "")
                )
        if self.group is not None:
            self.check_groups(splits)
        return {split: list(splits[split].values()) for split in SPLITS if splits.get(split)}

    def all_items(self) -> list[Item]:
        return [item for items in self.pairs().values() for item in items.values()]

    def check_rules_of_folders(self, pairs: Mapping[str, Any]) -> None:
        """Raise UserError if the splits are folders and a list is given, too."""
        for split, rule in self.splits.items():
            if isinstance(rule, str):
                raise UserError(
                    f"data.source.splits.{split}={rule}: the folders of {self.root} are the splits already "
                    f"({', '.join(pairs)}); leave the list out"
                )

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

    def divide(self, items: Mapping[str, Item]) -> dict[str, list[str]]:
        """Return the stems of each split."""
        lists = {split: self.read_list(rule, items) for split, rule in self.splits.items() if isinstance(rule, str)}
        split_of: dict[str, str] = {}
        for split, stems in lists.items():
            for stem in stems:
                if stem in split_of:
                    raise UserError(f"{items[stem].name}: listed for {split_of[stem]} and again for {split}")
                split_of[stem] = split
        fractions = {split: rule for split, rule in self.splits.items() if not isinstance(rule, str)}
        groups: dict[str, list[str]] = {}
        for stem in items:
            if stem not in split_of:
                groups.setdefault(self.group_of(stem), []).append(stem)
        splits = assign_splits(groups, fractions, self.split_seed)
        if self.fold is not None:
            rest = {name: stems for name, stems in groups.items() if stems[0] not in splits.get("test", ())}
            splits |= self.divide_into_folds(rest)
        return lists | splits

    def divide_into_folds(self, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Return train and val: all groups outside a fold and those in it."""
        if len(groups) < self.folds:
            raise UserError(
                f"{self.root}: {len(groups)} images or groups of train and val cannot be divided into "
                f"data.source.folds={self.folds}; add some, or set a smaller number"
            )
        parts = assign_splits(groups, {str(fold): 1 for fold in range(self.folds)}, self.split_seed)
        val = parts.pop(str(self.fold))
        return {"train": [stem for stems in parts.values() for stem in stems], "val": val}

    def read_list(self, name: str, items: Mapping[str, Item]) -> list[str]:
        """Return the stems in a text file of stems or file names."""
        path = self.root / name if (self.root / name).is_file() else Path(name)
        stems = []
        for line in read_lines(path):
            stem, suffix = name_parts(Path(line))
            stem = line if line in items or suffix not in SUFFIXES else (Path(line).parent / stem).as_posix()
            if stem not in items:
                raise UserError(f"{path}: no image {stem} in {self.root}{did_you_mean(stem, items)}")
            stems.append(stem)
        return stems

    def group_of(self, stem: str) -> str:
        """Return the group of an image: without a pattern, its stem."""
        if self.group is None:
            return stem
        match = self.group.search(stem)
        if match is None or match[1] is None:
            raise UserError(f"{self.root}: image {stem} does not match data.source.group={self.group.pattern}")
        return match[1]

    def check_groups(self, splits: Mapping[str, Iterable[str]]) -> None:
        """Check that no group is in two splits. Raises UserError."""
        first: dict[str, tuple[str, str]] = {}
        for split, stems in splits.items():
            for stem in stems:
                group = self.group_of(stem)
                first_split, first_stem = first.setdefault(group, (split, stem))
                if first_split != split:
                    raise UserError(
                        f"{self.root}: {first_stem} in {first_split} and {stem} in {split} are both of the group "
                        f"{group}; put each group into one split"
                    )


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


def assign_splits(
    groups: Mapping[str, Sequence[str]], fractions: Mapping[str, float], seed: int = 0
) -> dict[str, list[str]]:
    """Assign each group to a split, so that no split is empty and each has about its fraction of the images.

    Large groups are assigned first, in a random order; each to the split that lacks the most images.
    """
    splits: dict[str, list[str]] = {split: [] for split in fractions}
    if not fractions:
        return splits
    if len(groups) < len(fractions):
        raise UserError(
            f"{len(groups)} images or groups cannot be divided into {', '.join(fractions)}; add some, or remove a "
            f"split with data.source.splits.test=null"
        )
    scale = sum(map(len, groups.values())) / sum(fractions.values())
    names = list(groups)
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    for index, name in enumerate(sorted(shuffled, key=lambda name: -len(groups[name]))):
        empty = [split for split in splits if not splits[split]]
        candidates = empty if len(names) - index <= len(empty) else list(splits)
        split = max(candidates, key=lambda split: fractions[split] * scale - len(splits[split]))
        splits[split] += groups[name]
    return splits


def classes_in(values: Mapping[Any, str] | None) -> list[str] | None:
    """Return the classes in ``values``, in order of their first occurrence; None without ``values``."""
    if not isinstance(values, Mapping):
        return None
    for value, name in values.items():
        if not isinstance(name, str | int | float):
            raise UserError(
                f"data.source.values: expected the name of a class, or ignore, for {value}, found {name!r}; quote a "
                f'name such as "null"'
            )
    return [name for name in dict.fromkeys(map(str, values.values())) if name != "ignore"]


def check_classes(classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names as strings. Raises UserError unless they are a list of different names."""
    names = tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else ()
    valid = all(isinstance(name, str | int | float) and str(name).strip() for name in (classes if names else ()) or ())
    if not valid or not 2 <= len(names) == len(set(names)) <= IGNORE_INDEX or "ignore" in names:
        raise UserError(
            f"data.source.classes: expected a list of at least two names, such as "
            f"'data.source.classes=[background,cell]', up to {IGNORE_INDEX} different names, none of them ignore or "
            f"empty, found {f'{len(names)}: {format_values(names)}' if names else repr(classes)}"
        )
    return names


def class_colors(colors: Sequence[Sequence[int]] | None, labels: LabelMap) -> list[Color]:
    """Return the configured colours; by default those of colour masks, or the palette, repeated if it is too short."""
    count = len(labels.classes)
    if colors is not None:
        try:
            result = [(red, green, blue) for red, green, blue in colors]
        except (TypeError, ValueError):
            result = []
        if len(result) != count or not all(type(value) is int and 0 <= value < 256 for rgb in result for value in rgb):
            raise UserError(
                f"data.source.colors: expected {count} of [r, g, b], each 0 to 255, one per class, found {colors!r}"
            )
        return result
    result = [PALETTE[label % len(PALETTE)] for label in range(count)]
    for key, label in labels.label_of_value.items():
        if isinstance(key, tuple) and label != IGNORE_INDEX:
            result[label] = (key[0], key[1], key[2])
    return result


def check_splits(splits: Mapping[str, float | str | None]) -> dict[str, float | str]:
    """Return the list or the fraction of each split that is not null or 0. Raises UserError."""
    if not isinstance(splits, Mapping) or not set(splits) <= set(SPLITS):
        raise UserError(
            f"data.source.splits: expected train, val and test, such as {DEFAULT_SPLITS}, each a fraction, a text file "
            f"of stems, or null, found {splits!r}"
        )
    for split, rule in splits.items():
        if rule is not None and not isinstance(rule, str) and not (type(rule) in (int, float) and 0 <= rule < 1e9):
            raise UserError(
                f"data.source.splits.{split}: expected a fraction of at least 0 or a text file, found {rule!r}"
            )
    return {split: rule for split in SPLITS if (rule := splits.get(split))}


def check_folds(fold: int | None, folds: int, split_seed: int) -> tuple[int | None, int, int]:
    """Return the arguments. Raises UserError."""
    values = {"folds": (folds, 2, 10**6), "split_seed": (split_seed, 0, 2**32 - 1)}
    if fold is not None:
        values["fold"] = (fold, 0, folds - 1 if type(folds) is int else 0)
    for key, (value, least, most) in values.items():
        if type(value) is not int or not least <= value <= most:
            raise UserError(f"data.source.{key}: expected an integer of {least} to {most}, found {value!r}")
    return fold, folds, split_seed


def compile_group(group: str | None) -> re.Pattern[str] | None:
    """Compile the regular expression of the groups. Raises UserError."""
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise UserError(f"data.source.group: {group!r} is no regular expression ({error})") from None
    if not pattern.groups:
        raise UserError(
            f"data.source.group: {group!r} has no group; put the part that identifies the group in parentheses"
        )
    return pattern
