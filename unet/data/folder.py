"""Your own pictures, volumes or sequences: any ``images/`` and ``masks/``, matched by stem, split as you say."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.files import LabelMap, format_values, pair_files, read_lines
from unet.data.source import PALETTE, SPLITS, Color, Item, Source
from unet.errors import UserError, did_you_mean
from unet.io.image_formats import SUFFIXES, name_parts
from unet.labels import IGNORE_INDEX

MODES = ("L", "RGB", "RGBA")
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


class Folder(Source):
    """Images and masks in folders.

    ``root/images`` and ``root/masks`` are divided by ``splits``; where ``root/train/images`` stands instead, the
    folders ``train``, ``val`` and (if there is one) ``test`` are the splits. Sequences, pictures or volumes: the number
    of a mask's axes says which.

    Args:
        root: the folder.
        classes: class names; their place is the label. None: those that ``values`` names, in that order.
        colors: one ``[r, g, b]`` a class, for pictures; None: those of a colour mask, or a palette.
        values: what a mask stores -> class name or ``ignore``; see :class:`unet.data.files.LabelMap`.
        mask_stem: the mask's stem from the image's, such as ``"{stem}_mask"``.
        mode: a Pillow mode (``L``, ``RGB`` or ``RGBA``) to which every image is converted; None: as it is stored.
        splits: for each split a text file of stems (found from ``root`` or from the working directory), or its share
            of the images that no list names, or null for a split that is not wanted. The shares are dealt by a fixed
            seed, which is not the run's.
        group: a regular expression searched in the stem; images with the same first group (a patient, a video) never
            come into different splits.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
        values: Mapping[Any, str] | None = None,
        mask_stem: str = "{stem}",
        mode: str | None = None,
        splits: Mapping[str, float | str | None] = SHARES,
        group: str | None = None,
    ):
        if not isinstance(root, str):
            raise UserError(f"data.root: expected a folder, found {root!r}")
        self.root = Path(root)
        self.classes = class_names(classes if classes is not None else names_in(values))
        self.labels = LabelMap(values, self.classes)
        self.colors = class_colors(colors, self.labels)
        if not isinstance(mask_stem, str) or "{stem}" not in mask_stem:
            raise UserError(f'data.source.mask_stem: expected a pattern such as "{{stem}}_mask", found {mask_stem!r}')
        if mode is not None and mode not in MODES:
            raise UserError(f"data.source.mode: expected null or one of {', '.join(MODES)}, found {mode!r}")
        self.mask_stem, self.mode = mask_stem, mode
        self.splits = split_rules(splits)
        self.group = group_pattern(group)

    @cached_property
    def spatial_dims(self) -> int:  # type: ignore[override]
        """The axes of the first mask; that all others have as many is checked as they are read."""
        return self.items["train"][0].read()[1].ndim

    def load_splits(self) -> dict[str, list[Item]]:
        parts = {split: self.root / split for split in SPLITS if (self.root / split / "images").is_dir()}
        if "train" in parts and not (self.root / "images").is_dir():
            found = {split: self.pairs(folder) for split, folder in parts.items()}
            stems = {split: list(items) for split, items in found.items()}
        else:
            items = self.pairs(self.root)
            stems = self.divide(items)
            found = {split: {stem: items[stem] for stem in stems[split]} for split in stems}
        for split in ("train", "val"):
            if not found.get(split):
                raise UserError(
                    f"{self.root}: no images for {split}; training needs train and val (data.source.splits)"
                )
        self.check_groups(stems)
        return {split: list(found[split].values()) for split in SPLITS if found.get(split)}

    def pairs(self, folder: Path) -> dict[str, Item]:
        return pair_files(folder / "images", folder / "masks", self.labels, self.mask_stem, self.mode, self.on_error)

    def divide(self, items: Mapping[str, Item]) -> dict[str, list[str]]:
        """The stems of each split."""
        stems = {split: self.listed(rule, items) for split, rule in self.splits.items() if isinstance(rule, str)}
        place: dict[str, str] = {}
        for split, names in stems.items():
            for stem in names:
                if stem in place:
                    raise UserError(f"{items[stem].name}: listed for {place[stem]} and again for {split}")
                place[stem] = split
        shares = {split: rule for split, rule in self.splits.items() if not isinstance(rule, str)}
        rest: dict[str, list[str]] = {}
        for stem in items:
            if stem not in place:
                rest.setdefault(self.group_of(stem), []).append(stem)
        return stems | assign_splits(rest, shares)

    def listed(self, name: str, items: Mapping[str, Item]) -> list[str]:
        """The stems in a list, which may also name files."""
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
        """The group an image belongs to: itself where no pattern is given."""
        if self.group is None:
            return stem
        found = self.group.search(stem)
        if found is None or found[1] is None:
            raise UserError(f"{self.root}: image {stem} does not match data.source.group={self.group.pattern}")
        return found[1]

    def check_groups(self, stems: Mapping[str, Sequence[str]]) -> None:
        """Raise UserError where one group is in two splits."""
        if self.group is None:
            return
        home: dict[str, tuple[str, str]] = {}
        for split, names in stems.items():
            for stem in names:
                other, first = home.setdefault(self.group_of(stem), (split, stem))
                if other != split:
                    raise UserError(
                        f"{self.root}: {first} in {other} and {stem} in {split} are of one group "
                        f"({self.group_of(stem)}); keep a group in one split"
                    )


def assign_splits(groups: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[str, list[str]]:
    """Whole groups to the splits, each split as near to its share of the images as they allow, none left empty.

    Large groups are dealt first, equal ones in a fixed random order; each goes where the most is missing.
    """
    dealt: dict[str, list[str]] = {split: [] for split in shares}
    if not shares:
        return dealt
    if len(groups) < len(shares):
        raise UserError(
            f"{len(groups)} images or groups cannot be divided into {', '.join(shares)}; add some, or leave "
            f"a split out with data.source.splits.test=null"
        )
    wanted = {split: share * sum(map(len, groups.values())) / sum(shares.values()) for split, share in shares.items()}
    names = list(groups)
    shuffled = [names[place] for place in np.random.default_rng(0).permutation(len(names))]
    order = sorted(shuffled, key=lambda name: -len(groups[name]))
    for place, name in enumerate(order):
        empty = [split for split in dealt if not dealt[split]]
        open_splits = empty if len(order) - place <= len(empty) else list(dealt)
        split = max(open_splits, key=lambda split: wanted[split] - len(dealt[split]))
        dealt[split] += groups[name]
    return dealt


def names_in(values: Mapping[Any, str] | None) -> list[str] | None:
    """The classes that values stand for, in the order in which they come first; None where nothing is stated."""
    if not isinstance(values, Mapping):
        return None
    return [name for name in dict.fromkeys(map(str, values.values())) if name != "ignore"]


def class_names(classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names as text, once they are seen to be a list of different names."""
    names = tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else ()
    named = all(isinstance(name, str | int | float) and str(name).strip() for name in (classes if names else ()) or ())
    if not named or not 2 <= len(names) == len(set(names)) <= IGNORE_INDEX or "ignore" in names:
        raise UserError(
            f"data.source.classes: expected a list of at least two names, such as "
            f"'data.source.classes=[background,cell]', up to {IGNORE_INDEX} different names, none of them ignore or "
            f"empty, found {f'{len(names)}: {format_values(names)}' if names else repr(classes)}"
        )
    return names


def class_colors(colors: Sequence[Sequence[int]] | None, labels: LabelMap) -> list[Color]:
    """Return the colours as stated; else those of the masks; else the palette, repeated where it is too short."""
    number = len(labels.classes)
    if colors is not None:
        try:
            found = [(red, green, blue) for red, green, blue in colors]
        except (TypeError, ValueError):
            found = []
        if len(found) != number or not all(type(part) is int and 0 <= part < 256 for color in found for part in color):
            raise UserError(
                f"data.source.colors: expected {number} of [r, g, b], each 0 to 255, one a class, found {colors!r}"
            )
        return found
    found = [PALETTE[label % len(PALETTE)] for label in range(number)]
    for key, label in labels.stored.items():
        if isinstance(key, tuple) and label != IGNORE_INDEX:
            found[label] = (key[0], key[1], key[2])
    return found


def split_rules(splits: Mapping[str, float | str | None]) -> dict[str, float | str]:
    """Return each wanted split's list or share."""
    if not isinstance(splits, Mapping) or not set(splits) <= set(SPLITS):
        raise UserError(
            f"data.source.splits: expected train, val and test, such as {SHARES}, each a share, a text file of stems, "
            f"or null, found {splits!r}"
        )
    for split, rule in splits.items():
        if rule is not None and not isinstance(rule, str) and not (type(rule) in (int, float) and 0 <= rule < 1e9):
            raise UserError(
                f"data.source.splits.{split}: expected a share of at least 0 or a text file, found {rule!r}"
            )
    return {split: rule for split in SPLITS if (rule := splits.get(split))}


def group_pattern(group: str | None) -> re.Pattern[str] | None:
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise UserError(f"data.source.group: {group!r} is no regular expression ({error})") from None
    if not pattern.groups:
        raise UserError(f"data.source.group: {group!r} has no group; put the part that names it in parentheses")
    return pattern
