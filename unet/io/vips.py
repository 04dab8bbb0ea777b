"""Read large PNG and JPEG images row by row with pyvips, an optional package."""

from pathlib import Path
from typing import Any

import numpy as np

from unet.io.image_formats import Array, StoredImage
from unet.network.geometry import Window

DTYPES = {"uchar": np.uint8, "ushort": np.uint16}


class SequentialRows:
    """A function window -> (*window, C); rows before those already read are decoded once more."""

    def __init__(self, path: Path):
        import pyvips

        self.path, self.pyvips = path, pyvips
        self.image = self.restart()

    def restart(self) -> Any:
        """Open the file at its first row."""
        image: Any = self.pyvips.Image.new_from_file(str(self.path), access="sequential")
        self.region, self.next_row = self.pyvips.Region.new(image), 0
        return image

    def __call__(self, window: Window) -> Array:
        begin, end = window[0].start, window[0].stop
        if begin < self.next_row:
            self.restart()
        self.next_row = end
        values = np.frombuffer(self.region.fetch(0, begin, self.image.width, end - begin), DTYPES[self.image.format])
        return values.reshape(end - begin, self.image.width, self.image.bands)[:, *window[1:]]


def open_with_vips(path: Path) -> StoredImage | None:
    """Open a PNG or JPEG; return None without pyvips, or for a file that it cannot read."""
    try:
        import pyvips
    except (ImportError, OSError):  # OSError: the package is there, the library is not
        return None
    try:
        rows = SequentialRows(path)
    except pyvips.Error:
        return None
    image = rows.image
    if image.format not in DTYPES:
        return None
    orientation = image.get("orientation") if "orientation" in image.get_fields() else 1
    shape = (image.height, image.width, image.bands)
    return StoredImage(
        path, shape, 2, rows, f"{image.interpretation}", np.dtype(DTYPES[image.format]), orientation=orientation
    )
