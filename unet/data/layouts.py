"""Propose the patterns that fit the files of a folder, from their names alone."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from pathlib import Path

from unet.data.annotations import read_coco
from unet.data.mask_reading import MASK_SUFFIXES, read_mask
from unet.data.patterns import FilePattern, natural_key, split_of_name
from unet.errors import UserError
from unet.io.image_formats import SUFFIXES, name_parts

MAX_FILES = 20_000  # number of files that are looked at
MAX_COMPARED = 200  # number of files of a folder whose names are compared
MAX_FOLDERS = 24  # number of folder patterns that are compared, those with the most files first
MAX_AFFIXES = 12  # number of beginnings and of endings of the names in a folder that are compared
MIN_FREQUENCY = 0.15  # the fraction of the files of a folder that an affix has at least
MIN_PAIRED = 0.3  # the fraction of the files (at most MAX_COMPARED) that are paired at least
MAX_MASK_VALUES = 64  # number of values up to which a file looks like a mask


@dataclass(frozen=True)
class Candidate:
    """Files with names of one form.

    Attributes:
        folder: a pattern of their folders, which may have ``{id}``.
        prefix, suffix: what their names have before and after ``{id}``, or instead of it.
        extension: their file name extension, or ``.*``.
        names: the file of every name: its split, sub-folders and ``{id}``.
    """

    folder: str
    prefix: str
    suffix: str
    extension: str
    names: dict[str, Path] = field(repr=False, compare=False)

    @property
    def pattern(self) -> str:
        id_of_file = "" if "{id}" in self.folder else "{id}"
        name = f"{self.prefix}{id_of_file}{self.suffix}{self.extension}"
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def complexity(self) -> int:
        """Return a number that is lower for a simpler pattern."""
        literal = len(self.prefix + self.suffix) + 4 * (self.extension != ".*")
        depth = self.folder.replace("{split}/", "").count("/")
        return literal + 6 * ("**" in self.folder) + 3 * depth - 12 * ("{split}" in self.folder)

    @cached_property
    def value_rank(self) -> tuple[bool, bool, float]:
        """Return how little one of the files looks like a mask: by number of values and by colours."""
        try:
            mask = read_mask(next(iter(self.names.values())), colors=True)
        except UserError:
            return True, True, float("inf")
        count = len(mask.index(colors=True)[1])
        return count > MAX_MASK_VALUES, not mask.is_grayscale, count


@dataclass(frozen=True)
class Layout:
    """The patterns of images and masks.

    Attributes:
        image, mask: the files.
        channels: the channels of an image in several files.
        alternatives: other files that are masks of the same images.
        coco: the file of the masks of all images.
    """

    image: Candidate
    mask: Candidate
    channels: tuple[str, ...] = ()
    alternatives: tuple[Candidate, ...] = ()
    coco: str = ""

    @property
    def overrides(self) -> list[str]:
        """Return the overrides, quoted for bash."""
        image = self.image
        if self.channels:
            image = replace(image, suffix=re.sub(r"\d+$", "{channel}", image.suffix))
        settings = {"image": image.pattern, "mask": self.coco or self.mask.pattern}
        overrides = [quote_override(f"data.source.{key}", value) for key, value in settings.items()]
        if self.channels:
            channels = ",".join(f'"{channel}"' for channel in self.channels)
            overrides.append(shlex.quote(f"data.source.channels=[{channels}]"))
        return overrides

    @property
    def class_folders(self) -> list[str]:
        """Return the folders of the masks if there is one for each class."""
        parent = Path(self.mask.folder).parent
        folders = sorted({mask.folder for mask in (self.mask, *self.alternatives)})
        same_parent = [folder for folder in folders if Path(folder).parent == parent]
        return same_parent if parent != Path() and Path(self.image.folder).parent != parent and same_parent[1:] else []


def advise_layout(
    root: Path, image: FilePattern, mask: FilePattern, num_images: int, errors: Sequence[UserError]
) -> str:
    """Return the message for a folder in which little matches: what is there, and the patterns that would fit."""
    files = list(islice(list_files(root), MAX_FILES))
    if not files:
        return f"{root}: no images (expected {', '.join(sorted(SUFFIXES))}) below it"
    if num_images == 0:
        problem = f'{root}: no images match data.source.image="{image.text}"'
    else:
        problem = str(errors[0]) if errors else f'{root}: no masks match data.source.mask="{mask.text}"'
    found = f"{problem}; found {describe_folders(root, files)}"
    pair = propose_patterns(root, files)
    if pair is None:
        expected = f"expected {', '.join(sorted(SUFFIXES))} in the folders of data.source.image and data.source.mask"
        return f"{found}; {expected} (docs/your_data.md)"
    if classes := pair.class_folders:
        return (
            f"{found}; there is one mask folder a class ({', '.join(classes)}): several classes at one pixel are not "
            f"supported; write one mask per image, with one number a class"
        )
    return f"{found}; if this is right, add {' '.join(pair.overrides)}"


def list_files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder that may be images or masks, relative to it."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        paths = [Path(folder, name).relative_to(root) for name in files if not name.startswith(".")]
        yield from sorted((path for path in paths if name_parts(path)[1] in MASK_SUFFIXES), key=natural_key)


def describe_folders(root: Path, files: Sequence[Path], most: int = 5) -> str:
    """Return ``imgs (12 files, such as n00.png), labels (12 files, such as n00.png)``."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    largest = sorted(folders, key=lambda folder: (-len(folders[folder]), str(folder)))
    texts = [
        f"{'the folder itself' if folder == Path() else folder.as_posix()} "
        f"({len(folders[folder])} files, such as {folders[folder][0].name})"
        for folder in largest[:most]
    ]
    others = len(largest) - most
    return ", ".join(texts) + (f" and {others} more folders" if others > 0 else "")


def quote_override(key: str, text: str) -> str:
    """Return ``'key="text"'``: quoted for Hydra and for bash."""
    escaped = text.replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')


def propose_patterns(root: Path, files: Sequence[Path]) -> Layout | None:
    """Return the layout that pairs the most images and masks; None if that are few of the files.

    Of two files with one name, the mask is the one that has fewer values.
    """
    candidates = list(find_candidates(root, files))
    with_name: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        for name in candidate.names:
            with_name.setdefault(name, []).append(candidate)
    scores: list[tuple[tuple[int, int], Candidate, Candidate]] = []
    for image in candidates:
        names = list(image.names)
        examples = {names[0], names[len(names) // 2], names[-1]}
        masks = {id(mask): mask for name in examples for mask in with_name[name]}.values()
        scores += [(score, image, mask) for mask in masks if (score := rate_pair(image, mask))]
    best = max((score for score, _, _ in scores), default=(0, 0))
    if 2 * best[0] < MIN_PAIRED * min(len(files), MAX_COMPARED):
        return propose_coco(root, files, candidates)
    pairs = [(image, mask) for score, image, mask in scores if score == best]

    def rank(pair: tuple[Candidate, Candidate]) -> tuple:
        image, mask = pair
        (many, colored, count), complexity = image.value_rank, image.complexity + mask.complexity
        return (
            is_instances(mask),
            mask.value_rank,
            not many,
            not colored,
            -count,
            complexity,
            mask.pattern,
            image.pattern,
        )

    image, mask = min(pairs, key=rank)
    if mask.value_rank > image.value_rank:  # most images have no mask, and the masks were taken for images
        return None
    alternatives = tuple(other for first, other in pairs if first == image and not other.value_rank[0])
    return Layout(image, mask, find_channels(image, candidates), alternatives)


def is_instances(mask: Candidate) -> bool:
    """Return whether the names say that the masks number objects: VOC's SegmentationObject, Cityscapes' instanceIds."""
    return bool(re.search(r"object|instance", f"{mask.folder}/{mask.suffix}", re.IGNORECASE))


def rate_pair(image: Candidate, mask: Candidate) -> tuple[int, int] | None:
    """Return the number of pairs and, negative, of files without a partner; None if less than half have one."""
    mask_paths = set(mask.names.values())
    images = {name for name, path in image.names.items() if path not in mask_paths}
    pairs = len(images & mask.names.keys())
    is_image = name_parts(next(iter(image.names.values())))[1] in SUFFIXES
    if not pairs or not is_image or 2 * pairs < len(images):
        return None
    return pairs, 2 * pairs - len(images) - len(mask.names)


def find_candidates(root: Path, files: Sequence[Path]) -> Iterator[Candidate]:
    """Yield the files of each folder pattern by the beginnings and the endings that many of their names have."""
    groups: dict[str, list[tuple[str, Path]]] = {}
    for path in files:
        for folder, place in folder_patterns(path.parent.parts):
            groups.setdefault(folder, []).append((place, path))
    largest = sorted(groups, key=lambda folder: -len(groups[folder]))
    complete = [folder for folder in largest if "{split}" not in folder or has_splits(groups[folder])]
    for folder in complete[:MAX_FOLDERS]:
        members = groups[folder][:MAX_COMPARED]
        stems = [name_parts(path)[0] for _, path in members]
        extensions = sorted({path.name[len(stem) :] for stem, (_, path) in zip(stems, members, strict=True)})
        prefixes, suffixes = frequent(stems, PREFIX_ENDS, from_start=True), frequent(stems, SUFFIX_STARTS)
        endings: list[str] = [".*", *(extensions if extensions[1:] else [])]
        for prefix, suffix, extension in product(prefixes, suffixes, endings):
            names = {
                path: f"{place}{stem[len(prefix) : len(stem) - len(suffix)]}"
                for stem, (place, path) in zip(stems, members, strict=True)
                if stem.startswith(prefix) and stem.endswith(suffix) and len(stem) > len(prefix + suffix)
                if extension == ".*" or path.name.endswith(extension)
            }
            yield from unique_candidate(root, folder, prefix, suffix, extension, names)
        if folder.endswith("**"):  # {id} may be the folder: 001/image.png and 001/mask.png
            for stem in dict.fromkeys(stem for stem, count in Counter(stems).items() if count > 1):
                names = {path: place[:-1] for other, (place, path) in zip(stems, members, strict=True) if other == stem}
                yield from unique_candidate(root, f"{folder}/{{id}}", stem, "", ".*", names)


def unique_candidate(
    root: Path, folder: str, prefix: str, suffix: str, extension: str, names: Mapping[Path, str]
) -> Iterator[Candidate]:
    """Yield the candidate of files and their names, if there are any and the names are unique."""
    if names and len(set(names.values())) == len(names):
        files = {name: root / path for path, name in names.items()}
        yield Candidate(folder, prefix, suffix, extension, files)


def folder_patterns(parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the patterns of a folder, each with what distinguishes it from others of that pattern.

    ``("train", "a")`` -> ``train/a``, ``train/**`` with ``a``, ``**`` with ``train/a``, ``{split}/a`` with ``train``.
    """
    tokens = [re.split(r"([-_ ]|annot$)", part) for part in parts]  # trainannot: CamVid
    splits = [split for words in tokens for word in words if (split := split_of_name(word))]
    general = ["".join("{split}" if split_of_name(word) else word for word in words) for words in tokens]
    for names, split in [(list(parts), "")] + ([(general, splits[0])] if len(splits) == 1 else []):
        yield "/".join(names), f"{split}:"
        for depth in range(len(names)):
            if not split or "{split}" in "".join(names[:depth]):
                yield "/".join([*names[:depth], "**"]), f"{split}:{'/'.join(parts[depth:])}/"
                if depth < len(names) - 1:  # patient1/images, patient1/masks
                    yield "/".join([*names[:depth], "**", names[-1]]), f"{split}:{'/'.join(parts[depth:-1])}/"


def has_splits(members: Sequence[tuple[str, Path]]) -> bool:
    """Return whether files are in the training and in the validation split."""
    return {"train", "val"} <= {place.partition(":")[0] for place, _ in members}


PREFIX_ENDS = re.compile(r"(?<=[-_. ])|(?<=[^\W\d_])(?=\d)")
SUFFIX_STARTS = re.compile(r"(?=[-_. ])|(?<=\d)(?=[^\W\d_])")
"""Positions in a name where an affix may end or start: at separators, and between letters and digits."""


def frequent(stems: Sequence[str], positions: re.Pattern[str], from_start: bool = False) -> list[str]:
    """Return the affixes that ``MIN_FREQUENCY`` of the stems have, the most frequent first, and the empty one."""
    counts: Counter[str] = Counter()
    for stem in stems:
        ends = {match.start() for match in positions.finditer(stem)} - {0, len(stem)}
        counts.update(stem[:end] if from_start else stem[end:] for end in ends)
    common = [affix for affix, count in counts.most_common(MAX_AFFIXES) if count >= MIN_FREQUENCY * len(stems)]
    return ["", *common]


def find_channels(image: Candidate, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the numbers at the end of the names if an image has a file for each."""
    match = re.fullmatch(r"(\D?)(\d+)", image.suffix)
    if match is None:
        return ()
    form = re.compile(re.escape(match[1]) + rf"(\d{{{len(match[2])}}})")
    channels = {
        other_match[1]
        for other in candidates
        if (other.folder, other.prefix, other.extension) == (image.folder, image.prefix, image.extension)
        and (other_match := form.fullmatch(other.suffix))
        and other.names.keys() == image.names.keys()
    }
    return tuple(sorted(channels)) if len(channels) > 1 else ()


def propose_coco(root: Path, files: Sequence[Path], candidates: Sequence[Candidate]) -> Layout | None:
    """Return the layout of a COCO file and the images that it names, if there is one."""
    for path in [path for path in files if path.suffix.lower() == ".json"][:4]:
        try:
            names = {Path(name).name for name in read_coco(root / path)}
        except UserError:
            continue
        images = [c for c in candidates if {image.name for image in c.names.values()} & names and not c.prefix]
        if images:
            image = min(images, key=lambda c: (-len(c.names), c.complexity))
            return Layout(image, image, coco=path.as_posix())
    return None
