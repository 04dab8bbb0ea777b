"""The interface of a data set: named classes, and for each split a list of items that can be read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from unet.errors import UserError
from unet.io.image_formats import Array
from unet.io.image_reader import AS_STORED, ReadOptions

SPLITS = ("train", "val", "test")
ALL = "all"
"""The name of all items as one split, in an evaluation."""

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (128, 128, 128), (153, 0, 0), (102, 51, 153), (178, 223, 138), (141, 211, 199), (188, 128, 189),
    (85, 107, 47), (255, 192, 203), (70, 130, 180), (139, 69, 19), (255, 255, 255), (47, 79, 79), (190, 186, 218),
)  # fmt: skip
"""Default colours of classes, the first eight Okabe and Ito's, which colour-blind readers can distinguish."""


@dataclass(frozen=True)
class Item:
    """An image with its labels, read on demand.

    Attributes:
        name: its name in messages; the path of the image, if it is a file.
        read: a function that returns image (*S, C), of any real dtype, and target (*S), uint8,
            ``unet.labels.IGNORE_INDEX`` where unlabelled.
    """

    name: str
    read: Callable[[], tuple[Array, Array]]


def in_memory_pair(image: Array, target: Array) -> tuple[Array, Array]:
    """Return both arrays; ``partial(in_memory_pair, image, target)`` is the ``read`` of an item in memory."""
    return image, target


def raise_error(error: UserError) -> None:
    """Raise an error about a file: the default :attr:`Source.on_error`."""
    raise error


class Source(ABC):
    """A data set: its classes, and the items of each split.

    Attributes:
        classes: class names; their index is the label.
        colors: one RGB colour per class.
        spatial_dims: 1, 2 or 3.
        read_options: how its image files are read, as prediction has to read others.
        channels, channel_file: of images with one file a channel, the texts of ``{channel}`` and the pattern of their
            file names; otherwise empty and None.
        gamma: the exponent that is applied to the brightness of every image; 1: none.
        on_error: called with an error for each file without a partner; raises it by default.
    """

    classes: Sequence[str]
    colors: Sequence[Color] = PALETTE
    spatial_dims: int = 2
    read_options: ReadOptions = AS_STORED
    channels: Sequence[str] = ()
    channel_file: str | None = None
    gamma: float = 1.0
    on_error: Callable[[UserError], None] = staticmethod(raise_error)

    @abstractmethod
    def load_splits(self) -> dict[str, list[Item]]:
        """Return the items of every split that is present. Raises UserError if data is missing or inconsistent."""

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        """Return the result of :meth:`load_splits`, called once."""
        return self.load_splits()

    def all_items(self) -> list[Item]:
        """Return the items of every split in one list; a source that divides its items need not divide them."""
        return [item for items in self.items.values() for item in items]

    def group_of(self, item: Item) -> str:
        """Return the group of an item, such as its patient or video: items of different groups are independent."""
        return item.name

    @property
    def num_classes(self) -> int:
        return len(self.classes)
