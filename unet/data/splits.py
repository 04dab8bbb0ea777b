"""Divide the images of a folder into splits or folds, by lists, shares and groups."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from unet.data.files import read_lines
from unet.data.source import SPLITS, Item
from unet.errors import UserError, did_you_mean
from unet.io.image_formats import SUFFIXES, name_parts

DEFAULT_SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


class SplitRules:
    """The rules by which the images of a folder are divided; see :class:`unet.data.folder.Folder` for the arguments.

    Raises:
        UserError: a rule is invalid, or contradicts another one.
    """

    def __init__(
        self,
        root: Path,
        splits: Mapping[str, float | str | None] = DEFAULT_SPLITS,
        group: str | None = None,
        fold: int | None = None,
        folds: int = 5,
        split_seed: int = 0,
    ):
        self.root, self.splits = root, check_splits(splits)
        self.left_out = [split for split, rule in splits.items() if not rule]
        self.group = compile_group(group)
        self.fold, self.folds, self.split_seed = check_folds(fold, folds, split_seed)
        if fold is not None and (lists := [split for split in ("train", "val") if isinstance(splits.get(split), str)]):
            raise UserError(
                f"data.source.fold={fold}: divides the images of train and val, but data.source.splits.{lists[0]} is a "
                f"list; leave one of them out"
            )

    def check_split_folders(self, folders: Iterable[str]) -> None:
        """Raise UserError if there is a list or a fold, although the folders are the splits already."""
        found = f"the folders of {self.root} are the splits already ({', '.join(folders)})"
        for split, rule in self.splits.items():
            if isinstance(rule, str):
                raise UserError(f"data.source.splits.{split}={rule}: {found}; leave the list out")
        if self.fold is not None:
            raise UserError(
                f"data.source.fold={self.fold}: {found}; put all images into one folder, or leave the fold out"
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
        if self.group is None:
            return
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
    check_integer("folds", folds, 2, 10**6)
    if fold is not None:
        check_integer("fold", fold, 0, folds - 1)
    return fold, folds, check_split_seed(split_seed)


def check_split_seed(split_seed: int) -> int:
    """Return the seed of a division into splits. Raises UserError."""
    return check_integer("split_seed", split_seed, 0, 2**32 - 1)


def check_integer(key: str, value: int, least: int, most: int) -> int:
    """Return an integer. Raises UserError unless it is one, within the limits."""
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"data.source.{key}: expected an integer of {least} to {most}, found {value!r}")
    return value


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
