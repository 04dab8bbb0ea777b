"""Items read once before training: checked, counted, and kept in memory while a budget lasts."""

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

from unet.data.source import Array, Item
from unet.errors import DataUnavailable, UserError
from unet.labels import IGNORE_INDEX, label_entropy

Result = TypeVar("Result")


class Samples:
    """The checked items of one split.

    Every item is read once here, in parallel, so that a bad file stops the run before training and not in the middle.

    Args:
        items: what to read.
        num_classes: labels are below it, or ``IGNORE_INDEX``.
        spatial_dims: axes of a target.
        budget: bytes of decoded images and targets that may stay in memory; the rest is read again when needed.
        split: the split's name, for the progress bar.

    Attributes:
        item_counts: pixels of each class in every item (N, num_classes).
        channels: channels of every image.
        dtype, range: what holds every image's values (uint8, uint16 or float32), the least and the largest of them.
        sizes: each size of a target that occurs, and the first item that has it.
        digests: of every image, equal for equal pixels.
        bytes: what is kept in memory.
    """

    def __init__(self, items: Sequence[Item], num_classes: int, spatial_dims: int, budget: float, split: str):
        self.items, self.num_classes, self.spatial_dims = items, num_classes, spatial_dims
        self.item_counts = np.zeros((len(items), num_classes), np.int64)
        self.bytes = 0
        self.kept: dict[int, tuple[Array, Array]] = {}
        self.channels = 0
        self.dtype, self.range = np.dtype(np.uint8), (math.inf, -math.inf)
        self.sizes: dict[tuple[int, ...], int] = {}
        self.digests: list[bytes] = []

        def read_one(item: Item) -> tuple[Array, Array, bytes]:
            image, target = read_item(item, num_classes, spatial_dims)
            return image, target, hash_pixels(image)

        read = read_in_parallel(read_one, items, os.cpu_count() or 1)
        for index, (image, target, pixels) in enumerate(progress(read, len(items), f"reading {split}")):
            self.add(index, image, target, budget)
            self.digests.append(pixels)

    def add(self, index: int, image: Array, target: Array, budget: float) -> None:
        """Count an item's labels and values, and keep it in memory while the budget lasts."""
        self.channels = self.channels or image.shape[-1]
        if image.shape[-1] != self.channels:
            raise channel_mismatch(self.items[index], image.shape[-1], self.items[0], self.channels)
        self.item_counts[index] = np.bincount(target.ravel(), minlength=256)[: self.num_classes]
        self.sizes.setdefault(target.shape, index)
        self.dtype = np.result_type(self.dtype, image.dtype)
        self.range = min(self.range[0], float(image.min())), max(self.range[1], float(image.max()))
        size = image.nbytes + target.nbytes
        if self.bytes + size <= budget:
            for kept in (image, target):
                kept.setflags(write=False)  # an augmentation that works in place must not change the next epoch
            self.kept[index] = image, target
            self.bytes += size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """image (*S, C) and target (*S).

        Raises:
            DataUnavailable: the item, which was read once before, cannot be read again.
        """
        try:
            return self.kept.get(index) or read_item(self.items[index], self.num_classes, self.spatial_dims)
        except (UserError, OSError) as error:
            raise DataUnavailable(
                f"{error} (it could be read when the run began; see that its disk is there)"
            ) from error

    @property
    def label_counts(self) -> list[int]:
        """Pixels of each class over the split."""
        return self.item_counts.sum(0).tolist()

    def class_balance(self) -> Array:
        """Probability of each item (N,) where a class is drawn evenly, then an item by its pixels of that class."""
        totals = self.item_counts.sum(0)
        return (self.item_counts[:, totals > 0] / totals[totals > 0]).mean(1)

    def foreground_balance(self) -> Array:
        """Probability of each item (N,): three draws in four by its pixels of any class but the commonest, one evenly.

        Among what is not background every class keeps its proportion, so predictions stay as calibrated as they were.
        """
        foreground = np.delete(self.item_counts, self.item_counts.sum(0).argmax(), axis=1).sum(1)
        even = np.full(len(self), 1 / len(self))
        return 0.75 * foreground / foreground.sum() + 0.25 * even if foreground.any() else even

    def highest_entropy(self, count: int) -> list[int]:
        """The items whose labels are the most mixed (largest entropy of the class shares): those worth a look."""
        return np.argsort(-label_entropy(self.item_counts), kind="stable")[:count].tolist()

    def statistics(self, most: int = 64) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel over up to ``most`` evenly spaced images, in their own units."""
        total, squares, count = np.zeros(self.channels), np.zeros(self.channels), 0
        for index in evenly_spaced(len(self), most):
            pixels = self[index][0].reshape(-1, self.channels).astype(np.float64)
            total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def read_in_parallel(read: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """Yield ``read(item)`` of every item, in order.

    At most ``2 * num_threads`` results wait to be consumed, so that decoded images do not fill the memory.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for item in items:
            pending.append(pool.submit(read, item))
            if len(pending) == 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def read_item(item: Item, num_classes: int, spatial_dims: int) -> tuple[Array, Array]:
    """Read an item; raise UserError naming it unless image and target fit each other and the classes."""
    image, target = item.read()
    if image.ndim != spatial_dims + 1 or 0 in image.shape:
        raise UserError(
            f"{item.name}: expected {spatial_dims} spatial axes, as in the whole data set, and channels, none of them "
            f"empty; found {' x '.join(map(str, image.shape))}"
        )
    if target.shape != image.shape[:-1]:
        found, expected = (" x ".join(map(str, shape)) for shape in (target.shape, image.shape[:-1]))
        raise UserError(f"{item.name}: its mask is {found}, the image {expected}; they must be of one size")
    if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
        raise UserError(f"{item.name}: holds NaN or infinite values; replace them or take the image out")
    wrong = target[(target >= num_classes) & (target != IGNORE_INDEX)]
    if wrong.size:
        raise UserError(f"{item.name}: label {wrong[0]} is outside the {num_classes} classes")
    return image, target


def evenly_spaced(count: int, most: int) -> list[int]:
    """Up to ``most`` of the places 0 to ``count`` - 1, ascending, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def hash_pixels(array: Array) -> bytes:
    """The same for the same pixels, whatever file they come from."""
    found = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(array).data)
    return found.digest()


def cross_split_duplicates(parts: Iterable[Samples]) -> list[tuple[Item, Item]]:
    """Pairs of items from different splits whose images are equal; those of one value everywhere are none."""
    first: dict[bytes, tuple[Samples, int]] = {}
    pairs = []
    for samples in parts:
        for index, key in enumerate(samples.digests):
            other, place = first.setdefault(key, (samples, index))
            if other is not samples and np.ptp(samples[index][0]) > 0:
                pairs.append((other.items[place], samples.items[index]))
    return pairs


def channel_mismatch(item: Item, channels: int, other: Item, expected: int) -> UserError:
    return UserError(
        f"{item.name}: {channels} channels, but {other.name} has {expected}; "
        f"all images of a data set need the same number"
    )


def progress(values: Iterable, total: int, description: str) -> Iterable:
    """A progress bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    return track(values, description, total, console=console, transient=True, disable=not console.is_terminal)
