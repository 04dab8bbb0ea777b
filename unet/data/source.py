"""What a data set is: named classes, and for each split a list of items that can be read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from unet.errors import UserError
from unet.io.image_formats import Array

SPLITS = ("train", "val", "test")


Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (128, 128, 128), (153, 0, 0), (102, 51, 153), (178, 223, 138), (141, 211, 199), (188, 128, 189),
    (85, 107, 47), (255, 192, 203), (70, 130, 180), (139, 69, 19), (255, 255, 255), (47, 79, 79), (190, 186, 218),
)  # fmt: skip
"""Colours for classes that come without: Okabe and Ito's eight first, which colour-blind readers tell apart."""


@dataclass(frozen=True)
class Item:
    """One image with its labels, read on demand.

    Attributes:
        name: what messages call it; a path where there is a file.
        read: returns image (*S, C), of any real dtype, and target (*S), uint8,
            ``unet.labels.IGNORE_INDEX`` where unlabelled.
    """

    name: str
    read: Callable[[], tuple[Array, Array]]


def in_memory_pair(image: Array, target: Array) -> tuple[Array, Array]:
    """What an item's ``read`` is made of where the arrays are in memory: ``partial(in_memory_pair, image, target)``."""
    return image, target


def raise_error(error: UserError) -> None:
    """What is done about a file that cannot be used, unless a check wants to hear of all of them."""
    raise error


class Source(ABC):
    """A data set: what it is called, what its classes are, which items each split has.

    Attributes:
        classes: class names; their place is the label.
        colors: one RGB colour a class, for pictures.
        spatial_dims: 1, 2 or 3.
        on_error: told of files that belong to no pair; raises, unless replaced by who collects them.
    """

    classes: Sequence[str]
    colors: Sequence[Color] = PALETTE
    spatial_dims: int = 2
    on_error: Callable[[UserError], None] = staticmethod(raise_error)

    @abstractmethod
    def load_splits(self) -> dict[str, list[Item]]:
        """The items of every split that is present. Raises UserError where the data is missing or inconsistent."""

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        """The result of :meth:`load_splits`, looked up once."""
        return self.load_splits()

    @property
    def num_classes(self) -> int:
        return len(self.classes)
