"""The samples of a split: read once before training, checked, counted and cached."""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from unet.data.files import FilePair
from unet.data.image_range import ImageRange, image_range
from unet.data.source import Array, Item
from unet.errors import DataUnavailable, UserError
from unet.labels import IGNORE_INDEX, label_entropy
from unet.network.geometry import times

Argument = TypeVar("Argument")
Result = TypeVar("Result")
MAX_STATISTICS = 64
"""The largest number of images whose mean and standard deviation are computed."""


class Samples:
    """The checked items of one split.

    Every item is read once here, in parallel, so that an invalid file is found before training.

    Args:
        items: the items.
        num_classes: labels are below it, or ``IGNORE_INDEX``.
        spatial_dims: axes of a target.
        budget: size of the cache of images and targets in bytes; other items are read again.
        split: the split's name, for the progress bar.

    Attributes:
        item_counts: pixels of each class in every item (N, num_classes).
        channels: channels of every image.
        ranges: the type and the range of the values of every image.
        dtype, range: the type of all images together (uint8, uint16 or float32), their smallest and largest value.
        sizes: every size of a target, with the first item of that size.
        digests: of every image, equal for equal pixels.
        num_pixels, num_missing: all pixels, and those without data, all of whose channels are NaN.
        bytes: size of the cached images and targets.
    """

    def __init__(self, items: Sequence[Item], num_classes: int, spatial_dims: int, budget: float, split: str):
        self.items, self.num_classes, self.spatial_dims = items, num_classes, spatial_dims
        self.item_counts = np.zeros((len(items), num_classes), np.int64)
        self.bytes = 0
        self.cache: dict[int, tuple[Array, Array]] = {}
        self.channels = 0
        self.dtype, self.range = np.dtype(np.uint8), (math.inf, -math.inf)
        self.sizes: dict[tuple[int, ...], int] = {}
        self.digests: list[bytes] = []
        self.ranges: list[ImageRange] = []
        self.num_pixels = self.num_missing = 0

        def read_and_hash(item: Item) -> tuple[Array, Array, ImageRange, bytes]:
            image, target = read_item(item, num_classes, spatial_dims)
            return image, target, image_range(image, file_dtype(item, image)), hash_pixels(image)

        results = map_in_threads(read_and_hash, items, os.cpu_count() or 1)
        for index, (image, target, values, digest) in enumerate(progress(results, len(items), f"reading {split}")):
            self.add(index, image, target, values, budget)
            self.digests.append(digest)

    def add(self, index: int, image: Array, target: Array, values: ImageRange, budget: float) -> None:
        """Count an item's labels and values, and cache it within the budget."""
        self.channels = self.channels or image.shape[-1]
        if image.shape[-1] != self.channels:
            raise channel_mismatch(self.items[index], image.shape[-1], self.items[0], self.channels)
        self.item_counts[index] = np.bincount(target.ravel(), minlength=256)[: self.num_classes]
        self.sizes.setdefault(target.shape, index)
        self.dtype = np.result_type(self.dtype, values.dtype)
        self.num_pixels += target.size
        self.num_missing += values.num_missing
        self.ranges.append(values)
        if not math.isnan(values.low):
            self.range = min(self.range[0], values.low), max(self.range[1], values.high)
        size = image.nbytes + target.nbytes
        if self.bytes + size <= budget:
            for array in (image, target):
                array.setflags(write=False)  # an in-place augmentation must not change the cache
            self.cache[index] = image, target
            self.bytes += size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return image (*S, C) and target (*S).

        Raises:
            DataUnavailable: the item was read before and cannot be read again.
        """
        try:
            return self.cache.get(index) or read_item(self.items[index], self.num_classes, self.spatial_dims)
        except (UserError, OSError) as error:
            raise DataUnavailable(
                f"{error} (it was readable when the run started; check that its disk is available)"
            ) from error

    @property
    def smallest_maximum(self) -> float:
        """Return the smallest of the largest values of the images."""
        return min((values.high for values in self.ranges if not math.isnan(values.high)), default=math.nan)

    @property
    def label_counts(self) -> list[int]:
        """Return the number of pixels of each class over the split."""
        return self.item_counts.sum(0).tolist()

    def class_balance(self) -> Array:
        """Return the probability of each item (N,) if a class is drawn, then an item by its pixels of that class."""
        totals = self.item_counts.sum(0)
        return (self.item_counts[:, totals > 0] / totals[totals > 0]).mean(1)

    def foreground_balance(self) -> Array:
        """Return the probability of each item (N,): 3/4 in proportion to its foreground pixels, 1/4 uniform.

        Foreground is all but the most frequent class. Its classes keep their proportions, so calibration is unaffected.
        """
        foreground = np.delete(self.item_counts, self.item_counts.sum(0).argmax(), axis=1).sum(1)
        uniform = np.full(len(self), 1 / len(self))
        return 0.75 * foreground / foreground.sum() + 0.25 * uniform if foreground.any() else uniform

    def highest_entropy(self, count: int, first: int | None = None) -> list[int]:
        """Return ``count`` items with the largest entropy of class frequencies, of the ``first`` items if given."""
        return np.argsort(-label_entropy(self.item_counts[:first]), kind="stable")[:count].tolist()

    def statistics(self, most: int = MAX_STATISTICS) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation per channel over up to ``most`` evenly spaced images, without NaN."""
        total, squares, count = (np.zeros(self.channels) for _ in range(3))
        for index in evenly_spaced(len(self), most):
            pixels = self[index][0].reshape(-1, self.channels).astype(np.float64)
            present = ~np.isnan(pixels)
            pixels = np.where(present, pixels, 0)
            total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + present.sum(0)
        if not count.all():
            raise UserError(f"channel {int(count.argmin())} has no value in {len(self)} images: all are NaN or nodata")
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def map_in_threads(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], num_threads: int
) -> Iterator[Result]:
    """Yield ``function(argument)`` of every argument, in order.

    At most ``2 * num_threads`` results are pending, so that decoded images do not fill the memory.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for argument in arguments:
            pending.append(pool.submit(function, argument))
            if len(pending) == 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def read_item(item: Item, num_classes: int, spatial_dims: int) -> tuple[Array, Array]:
    """Read an item: image (*S, C) and target (*S), which is ignored where all channels of the image are NaN.

    Raises:
        UserError: image and target do not match each other or the classes, or a value is infinite.
    """
    image, target = item.read()
    if image.ndim != spatial_dims + 1 or 0 in image.shape:
        raise UserError(
            f"{item.name}: expected {spatial_dims} spatial axes, as in all items, and channels, none of them empty; "
            f"found {times(image.shape)}"
        )
    if target.shape != image.shape[:-1]:
        sizes = f"its mask is {times(target.shape)}, the image {times(image.shape[:-1])}"
        raise UserError(f"{item.name}: {sizes}; expected the same size")
    if image.dtype.kind == "f":
        if np.isinf(image).any():
            raise UserError(f"{item.name}: contains infinite values; replace them or remove the image")
        if (missing := np.isnan(image).all(-1)).any():
            target = np.where(missing, np.uint8(IGNORE_INDEX), target)
    invalid = target[(target >= num_classes) & (target != IGNORE_INDEX)]
    if invalid.size:
        raise UserError(f"{item.name}: label {invalid[0]} is outside the {num_classes} classes")
    return image, target


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return up to ``most`` evenly spaced indices below ``count``, ascending, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def hash_pixels(array: Array) -> bytes:
    """Return a hash of an array's shape, type and values."""
    digest = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def cross_split_duplicates(splits: Iterable[Samples]) -> list[tuple[Item, Item]]:
    """Return pairs of items from different splits whose images are equal and not constant."""
    first: dict[bytes, tuple[Samples, int]] = {}
    pairs = []
    for samples in splits:
        for index, key in enumerate(samples.digests):
            first_split, first_index = first.setdefault(key, (samples, index))
            if first_split is not samples and not is_constant(samples[index][0]):
                pairs.append((first_split.items[first_index], samples.items[index]))
    return pairs


def is_constant(image: Array) -> bool:
    """Return whether all pixels that are not NaN have one value."""
    values = image[~np.isnan(image)] if image.dtype.kind == "f" else image
    return values.size == 0 or bool((values == values.flat[0]).all())


def file_dtype(item: Item, image: Array) -> np.dtype:
    """Return the data type of an image, or of its file if pixels without data made it float32."""
    if isinstance(item.read, FilePair) and image.dtype.kind == "f" and np.isnan(image).any():
        return item.read.open_image(image.shape[:-1]).dtype
    return image.dtype


def named_ranges(splits: Iterable[Samples]) -> list[tuple[str, ImageRange]]:
    """Return the name and the range of every image of some splits."""
    return [(item.name, values) for part in splits for item, values in zip(part.items, part.ranges, strict=True)]


def channel_mismatch(item: Item, channels: int, reference: Item, expected: int) -> UserError:
    return UserError(
        f"{item.name}: {channels} channels, but {reference.name} has {expected}; expected the same in all images"
    )


def progress(values: Iterable, total: int, description: str) -> Iterable:
    """Show a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(values, description, total, console=console, transient=True, disable=not console.is_terminal)
