"""Images, volumes or sequences in ``images/`` and ``masks/``, matched by stem and divided into splits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.files import pair_files, read_lines
from unet.data.label_map import LabelMap, format_values
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

    ``root/images`` and ``root/masks`` are divided by ``splits``; if ``root/train/images`` exists instead, the folders
    ``train``, ``val`` and optionally ``test`` are the splits. The number of axes of the masks distinguishes sequences,
    images and volumes.

    Args:
        root: the folder.
        classes: class names; their index is the label. None: the names in ``values``, in that order.
        colors: one ``[r, g, b]`` per class; None: those of the colour masks, or a palette.
        values: value of the masks -> class name or ``ignore``; see :class:`unet.data.label_map.LabelMap`.
        mask_stem: a pattern for the stem of the mask, such as ``"{stem}_mask"``.
        mode: a Pillow mode (``L``, ``RGB`` or ``RGBA``) to which every image is converted; None: no conversion.
        nodata: a value of the images that stands for no data, besides NaN and the value that a GeoTIFF declares. Such
            pixels are replaced by the mean, and their labels are ignored.
        pages: ``channels`` or ``slices``: what the pages of a TIFF are; None: as its metadata say, or else slices.
        splits: for each split a text file of stems (in ``root`` or the working directory), or its fraction of the
            images that are in no list, or null. Images are assigned at random with a fixed seed, not the run's.
        group: a regular expression searched in the stem; images with the same first group (a patient, a video) are
            always in the same split.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
        values: Mapping[Any, str] | None = None,
        mask_stem: str = "{stem}",
        mode: str | None = None,
        nodata: float | None = None,
        pages: str | None = None,
        splits: Mapping[str, float | str | None] = DEFAULT_SPLITS,
        group: str | None = None,
    ):
        if not isinstance(root, str):
            raise UserError(f"data.root: expected a folder, found {root!r}")
        self.root = Path(root)
        self.classes = check_classes(classes if classes is not None else classes_in(values))
        self.labels = LabelMap(values, self.classes)
        self.colors = class_colors(colors, self.labels)
        if not isinstance(mask_stem, str) or "{stem}" not in mask_stem:
            raise UserError(f'data.source.mask_stem: expected a pattern such as "{{stem}}_mask", found {mask_stem!r}')
        if mode is not None and mode not in MODES:
            raise UserError(f"data.source.mode: expected null or one of {', '.join(MODES)}, found {mode!r}")
        if not isinstance(nodata, int | float | None) or isinstance(nodata, bool):
            raise UserError(f"data.source.nodata: expected null or a number, such as -9999, found {nodata!r}")
        if pages is not None and pages not in PAGES:
            raise UserError(f"data.source.pages: expected null or one of {', '.join(PAGES)}, found {pages!r}")
        self.mask_stem = mask_stem
        self.read_options = ReadOptions(mode, None if nodata is None else float(nodata), pages)
        self.splits = check_splits(splits)
        self.group = compile_group(group)

    @cached_property
    def spatial_dims(self) -> int:  # type: ignore[override]
        """Return the number of axes of the first mask; the others are checked when they are read."""
        return self.items["train"][0].read()[1].ndim

    def load_splits(self) -> dict[str, list[Item]]:
        folders = {split: self.root / split for split in SPLITS if (self.root / split / "images").is_dir()}
        if "train" in folders and not (self.root / "images").is_dir():
            splits = {split: self.pairs(folder) for split, folder in folders.items()}
        else:
            items = self.pairs(self.root)
            splits = {split: {stem: items[stem] for stem in stems} for split, stems in self.divide(items).items()}
        for split in ("train", "val"):
            if not splits.get(split):
                raise UserError(
                    f"{self.root}: no images for {split}; training needs train and val (data.source.splits)"
                )
        if self.group is not None:
            self.check_groups(splits)
        return {split: list(splits[split].values()) for split in SPLITS if splits.get(split)}

    def pairs(self, folder: Path) -> dict[str, Item]:
        return pair_files(
            folder / "images", folder / "masks", self.labels, self.mask_stem, self.read_options, self.on_error
        )

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
        return lists | assign_splits(groups, fractions)

    def read_list(self, name: str, items: Mapping[str, Item]) -> list[str]:
        """Return the stems in a text file of stems or file names."""
        path = self.root / name if (self.root / name).is_file() else Path(name)
        stems = []
        for line in read_lines(path):
            stem, suffix = name_parts(Path(line))
            stem = line if line in items or suffix not in SUFFIXES else stem
            if stem not in items:
                raise UserError(f"{path}: no image {stem} in {self.root / 'images'}{did_you_mean(stem, items)}")
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


def assign_splits(groups: Mapping[str, Sequence[str]], fractions: Mapping[str, float]) -> dict[str, list[str]]:
    """Assign each group to a split, so that no split is empty and each has about its fraction of the images.

    Large groups are assigned first, in a fixed random order; each to the split that lacks the most images.
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
    shuffled = [names[index] for index in np.random.default_rng(0).permutation(len(names))]
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
