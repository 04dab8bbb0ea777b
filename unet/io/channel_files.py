"""Read an image whose channels are in one file each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError
from unet.io.image_formats import Array
from unet.io.image_reader import ImageReader, open_image
from unet.network.geometry import Window, times


class ChannelReader:
    """Reads the rows of an image from one reader a channel. Raises UserError if their sizes differ."""

    def __init__(self, readers: Sequence[ImageReader]):
        self.readers, self.path, self.size = readers, readers[0].path, readers[0].size
        self.channels = sum(reader.channels for reader in readers)
        for reader in readers:
            if reader.size != self.size:
                raise UserError(
                    f"{reader.path}: {times(reader.size)}, but {readers[0].path.name} is {times(self.size)}; expected "
                    f"one size for all channels of an image"
                )

    @property
    def dtype(self) -> np.dtype:
        """Return the data type of the rows, unless pixels without data make it float32."""
        return np.result_type(*(reader.dtype for reader in self.readers))

    def rows(self, begin: int, end: int) -> Array:
        """Return rows (end - begin, *S[1:], channels)."""
        return np.concatenate([reader.rows(begin, end) for reader in self.readers], -1)

    def window(self, window: Window) -> Array:
        """Return a window (*window, channels)."""
        return np.concatenate([reader.window(window) for reader in self.readers], -1)

    def pixels(self, window: Window = ()) -> Array:
        """Return a window (*window, channels); by default the whole image (*S, channels)."""
        return np.concatenate([reader.pixels(window) for reader in self.readers], -1)


def open_channels(paths: Sequence[Path], spatial_dims: int, **options: Any) -> ImageReader | ChannelReader:
    """Open the file of an image, or the files of its channels, with the arguments of :func:`open_image`."""
    readers = [open_image(path, spatial_dims, **options) for path in paths]
    return readers[0] if len(readers) == 1 else ChannelReader(readers)
