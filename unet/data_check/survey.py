"""The survey of a data set: the facts about every item, and their totals."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from unet.data.folder import Folder
from unet.data.label_map import LabelMap
from unet.data.mask_file import Key, gray_as_color
from unet.data.samples import evenly_spaced, progress
from unet.data.source import Color, Item, Source
from unet.data_check.file_facts import ImageFacts, ItemFacts, MaskFacts, read_facts
from unet.data_check.mask_encoding import Encoding, encode_colors, encode_names, infer_encoding
from unet.data_check.shapes import Shapes
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

MAX_MEASURED_MASKS = 200  # number of masks whose objects are measured, evenly spaced over the data set
UNSPLIT = "all"  # the split of all items, if they cannot be divided


@dataclass(frozen=True)
class Survey:
    """The content of a data set's files.

    Attributes:
        source: the data set, as configured.
        facts: the facts about every item, split after split.
        errors: messages about files without a partner, and about splits that cannot be made.
        has_classes: whether the user named the classes.
    """

    source: Source
    facts: list[ItemFacts]
    errors: list[str]
    has_classes: bool = True

    @property
    def all_errors(self) -> list[str]:
        """Return the survey's errors and those of the items."""
        return self.errors + [error for item in self.facts for error in item.errors]

    @property
    def images(self) -> list[tuple[ItemFacts, ImageFacts]]:
        return [(item, item.image) for item in self.facts if item.image is not None]

    @property
    def masks(self) -> list[tuple[ItemFacts, MaskFacts]]:
        return [(item, item.mask) for item in self.facts if item.mask is not None]

    @cached_property
    def splits(self) -> dict[str, list[ItemFacts]]:
        splits: dict[str, list[ItemFacts]] = {}
        for item in self.facts:
            splits.setdefault(item.split, []).append(item)
        return splits

    @cached_property
    def counts(self) -> dict[Key, int]:
        """Return the number of pixels of every value over all masks."""
        total: Counter[Key] = Counter()
        for _, mask in self.masks:
            total.update(mask.counts)
        return dict(total)

    @cached_property
    def labels(self) -> LabelMap:
        """Return the configured labels of the masks' values."""
        if self.facts and self.facts[0].files is None:  # an item without files yields labels
            return LabelMap({**dict(enumerate(self.source.classes)), 255: "ignore"}, self.source.classes)
        return next((item.files.labels for item in self.facts if item.files), LabelMap(None, self.source.classes))

    @cached_property
    def encoding(self) -> Encoding:
        """Return the class of each value of the masks."""
        labels = self.labels
        if any(mask.has_names for _, mask in self.masks):
            return encode_names(self.counts, labels, self.has_classes)
        if self.palette_conflicts:
            return encode_colors(self.palette_counts, labels, self.has_classes)
        lossy = any(mask.lossy for _, mask in self.masks)
        beside = any(IGNORE_INDEX in mask.counts and set(mask.counts) - {0, IGNORE_INDEX} for _, mask in self.masks)
        return infer_encoding(self.counts, labels, self.has_classes, lossy, beside)

    @cached_property
    def palette_counts(self) -> dict[Key, int]:
        """Return the number of pixels of every colour in the masks with a palette."""
        total: Counter[Key] = Counter()
        for _, mask in self.masks:
            for index, color in (mask.palette or {}).items():
                total[color] += mask.counts.get(index, 0)
        return dict(total)

    @cached_property
    def palette_conflicts(self) -> dict[int, list[Color]]:
        """Return the colours of every index that has several in the palettes of the masks in which it occurs."""
        colors: dict[int, dict[Color, None]] = {}
        for _, mask in self.masks:
            for index, color in (mask.palette or {}).items():
                colors.setdefault(index, {})[color] = None
        return {index: list(found) for index, found in colors.items() if len(found) > 1}

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
        """Return whether ``data.source.mode`` can convert all images."""
        return self.spatial_dims == 2 and all(image.dtype == "uint8" for _, image in self.images)

    def class_counts(self, facts: Iterable[ItemFacts]) -> dict[str, int]:
        """Return the number of pixels of every class, and of ``ignore`` if it occurs."""
        total: Counter[str] = Counter(dict.fromkeys(self.encoding.classes, 0))
        for item in facts:
            total.update(self.mask_classes(item.mask) if item.mask else {})
        return dict(total)

    def mask_classes(self, mask: MaskFacts) -> dict[str, int]:
        """Return the number of pixels of every class in a mask, without values that have no class."""
        total: Counter[str] = Counter()
        for key, count in mask.counts.items():
            if key in self.encoding.meaning:
                total[self.encoding.meaning[key]] += count
        return dict(total)

    @cached_property
    def shapes(self) -> dict[str, Shapes]:
        """Return the objects of every class in the masks that were measured."""
        shapes = {name: Shapes() for name in self.encoding.classes}
        for _, mask in self.masks:
            for key, objects in mask.shapes.items():
                name = self.encoding.meaning.get(key)
                if name in shapes:
                    shapes[name] += objects
        return shapes

    @property
    def foreground(self) -> list[str]:
        """Return the classes that occur, except the most frequent."""
        counts = self.class_counts(self.facts)
        present = [name for name in self.encoding.classes if counts[name]]
        return [name for name in present if name != max(present, key=lambda name: counts[name])]


def survey_data(source: Source, has_classes: bool = True) -> Survey:
    """Read every item of a data set once, in parallel, with a progress bar on a terminal.

    A file that cannot be used adds an error to the result; the other files are still read.

    Raises:
        UserError: the data set has no items.
    """
    errors: list[str] = []
    splits = collect_items(source, errors)
    items = [(split, item) for split, members in splits.items() for item in members]
    return Survey(source, read_items(items), errors, has_classes)


def read_items(items: Sequence[tuple[str, Item]], with_images: bool = True) -> list[ItemFacts]:
    """Return the facts about every item of a split, read in parallel, or only about its mask."""
    measured = set(evenly_spaced(len(items), MAX_MEASURED_MASKS)) if with_images else set()

    def read(index: int) -> ItemFacts:
        split, item = items[index]
        return read_facts(item, split, index in measured, with_images)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return unify_colors(list(progress(pool.map(read, range(len(items))), len(items), "checking")))


def unify_colors(facts: Sequence[ItemFacts]) -> list[ItemFacts]:
    """Return the facts with colours for the values of grey and palette masks, too, if some masks have colours."""
    if not any(isinstance(key, tuple) for item in facts if item.mask for key in item.mask.counts):
        return list(facts)
    return [replace(item, mask=as_colors(item.mask)) if item.mask else item for item in facts]


def as_colors(mask: MaskFacts) -> MaskFacts:
    """Return the facts about a mask with the colours of its palette or its grey levels as keys."""
    palette: Mapping[Key, Key] = {**mask.palette} if mask.palette else {}

    def color(key: Key) -> Key:
        return palette.get(key, gray_as_color(key))

    counts: Counter[Key] = Counter()
    shapes: dict[Key, Shapes] = {}
    for key, count in mask.counts.items():
        counts[color(key)] += count
    for key, objects in mask.shapes.items():
        merged = shapes.setdefault(color(key), Shapes())
        merged += objects
    return replace(mask, counts=dict(counts), shapes=shapes, palette=None)


def collect_items(source: Source, errors: list[str]) -> Mapping[str, list[Item]]:
    """Return the items of every split; all items of a folder that cannot be divided, with the reason in ``errors``."""
    source.on_error = lambda error: errors.append(str(error))
    try:
        return source.items
    except UserError as error:
        if not isinstance(source, Folder):
            raise
        errors.clear()
        items = [item for members in source.pairs().values() for item in members.values()]
        errors.append(str(error))
        return {UNSPLIT: items}
