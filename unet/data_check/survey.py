"""Every item of a data set read once, and what they amount to."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unet.data.files import LabelMap, image_files
from unet.data.folder import Folder
from unet.data.samples import evenly_spaced, progress
from unet.data.source import Item, Source
from unet.data_check.file_facts import ImageFacts, ItemFacts, MaskFacts, read_facts
from unet.data_check.mask_encoding import Encoding, infer_encoding
from unet.data_check.mask_values import Key
from unet.data_check.shapes import Shapes
from unet.errors import UserError

MAX_MEASURED_MASKS = 200
"""Of how many masks the objects are measured, evenly spaced over the data set."""

MAX_COMPARED_NAMES = 50
"""Of how many images a mask's name is looked for."""

UNSPLIT = "all"
"""The split of everything, where the files cannot be divided."""


@dataclass(frozen=True)
class Survey:
    """A data set as its files are.

    Attributes:
        source: the data set, as configured.
        facts: of every item, split after split.
        problems: sentences on files that belong to no pair, and on splits that cannot be made.
        named: whether the classes are the user's.
    """

    source: Source
    facts: list[ItemFacts]
    problems: list[str]
    named: bool = True

    @property
    def images(self) -> list[tuple[ItemFacts, ImageFacts]]:
        return [(one, one.image) for one in self.facts if one.image is not None]

    @property
    def masks(self) -> list[tuple[ItemFacts, MaskFacts]]:
        return [(one, one.mask) for one in self.facts if one.mask is not None]

    @cached_property
    def splits(self) -> dict[str, list[ItemFacts]]:
        found: dict[str, list[ItemFacts]] = {}
        for one in self.facts:
            found.setdefault(one.split, []).append(one)
        return found

    @cached_property
    def counts(self) -> dict[Key, int]:
        """Pixels of every value over all masks."""
        total: Counter[Key] = Counter()
        for _, mask in self.masks:
            total.update(mask.counts)
        return dict(total)

    @cached_property
    def encoding(self) -> Encoding:
        """What the masks' values stand for."""
        labels = next((one.files.labels for one in self.facts if one.files), LabelMap(None, self.source.classes))
        if self.facts and self.facts[0].files is None:  # what an item without files delivers are labels
            labels = LabelMap({**dict(enumerate(self.source.classes)), 255: "ignore"}, self.source.classes)
        return infer_encoding(self.counts, labels, self.named, any(mask.lossy for _, mask in self.masks))

    @cached_property
    def spatial_dims(self) -> int:
        """Return the number of axes that most masks have."""
        dims = Counter(len(mask.size) for _, mask in self.masks)
        return dims.most_common(1)[0][0] if dims else 2

    @cached_property
    def channels(self) -> int:
        """Return the number of channels that most images have."""
        return Counter(image.channels for _, image in self.images).most_common(1)[0][0] if self.images else 3

    @property
    def can_convert(self) -> bool:
        """Return whether ``data.source.mode`` converts all images."""
        return self.spatial_dims == 2 and all(image.dtype == "uint8" for _, image in self.images)

    def class_counts(self, facts: Iterable[ItemFacts]) -> dict[str, int]:
        """Pixels of every class, and of ``ignore`` where there are any."""
        total: Counter[str] = Counter(dict.fromkeys(self.encoding.classes, 0))
        for one in facts:
            total.update(self.mask_classes(one.mask) if one.mask else {})
        return dict(total)

    def mask_classes(self, mask: MaskFacts) -> dict[str, int]:
        """Pixels of every class in a mask; values that stand for nothing are left out."""
        total: Counter[str] = Counter()
        for key, count in mask.counts.items():
            if key in self.encoding.meaning:
                total[self.encoding.meaning[key]] += count
        return dict(total)

    @cached_property
    def shapes(self) -> dict[str, Shapes]:
        """The objects of every class, in the masks that were measured."""
        found = {name: Shapes() for name in self.encoding.classes}
        for _, mask in self.masks:
            for key, shapes in mask.shapes.items():
                name = self.encoding.meaning.get(key)
                if name in found:
                    found[name] += shapes
        return found

    @property
    def foreground(self) -> list[str]:
        """The classes that occur, but for the one of most pixels."""
        counts = self.class_counts(self.facts)
        present = [name for name in self.encoding.classes if counts[name]]
        return [name for name in present if name != max(present, key=lambda name: counts[name])]


def survey_data(source: Source, named: bool = True) -> Survey:
    """Read every item of a data set once, in parallel, with a progress bar on a terminal.

    A file that cannot be used is reported in the result and stops nothing. Raises UserError where no item is found.
    """
    problems: list[str] = []
    items = collect_items(source, problems)
    listed = [(split, item) for split, members in items.items() for item in members]
    measured = set(evenly_spaced(len(listed), MAX_MEASURED_MASKS))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(
            lambda place: read_facts(listed[place][1], listed[place][0], place in measured), range(len(listed))
        )
        facts = list(progress(read, len(listed), "checking"))
    return Survey(source, facts, problems, named)


def collect_items(source: Source, problems: list[str]) -> Mapping[str, list[Item]]:
    """The items of every split; of a folder that cannot be divided all of them, with the reason among the problems."""
    source.on_error = lambda error: problems.append(str(error))
    try:
        return source.items
    except UserError as error:
        if not isinstance(source, Folder) or not (source.root / "images").is_dir():
            raise
        problems.clear()
        items = list(source.pairs(source.root).values())
        if not items:
            raise UserError(f"{problems[0]}{suggest_mask_stem(source.root) if problems else error}") from None
        problems.append(str(error))
        return {UNSPLIT: items}


def suggest_mask_stem(root: Path) -> str:
    """The ``mask_stem`` with which masks would be found, where most of them follow one pattern."""
    images, masks = (list(image_files(root / kind, on_error=lambda error: None)) for kind in ("images", "masks"))
    patterns = Counter(
        mask.replace(stem, "{stem}", 1) for stem in images[:MAX_COMPARED_NAMES] for mask in masks if stem in mask
    )
    pattern, times = (patterns.most_common(1) or [("", 0)])[0]
    fits = pattern not in ("", "{stem}") and 2 * times > min(len(images), MAX_COMPARED_NAMES)
    return f"; if masks are named so, add 'data.source.mask_stem=\"{pattern}\"'" if fits else ""
