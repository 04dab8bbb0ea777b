"""Read the EXIF orientation of an image file."""

from pathlib import Path

from PIL import ExifTags, Image

from unet.io.image_formats import PILLOW_SUFFIXES, name_parts


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 (as stored) if it has none or cannot be read."""
    if name_parts(path)[1] not in PILLOW_SUFFIXES:
        return 1
    try:
        with path.open("rb") as file, Image.open(file) as image:
            # The method of the base class: that of a PNG decodes the whole image.
            value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a decoder of a damaged file may raise anything; the reader reports it
        return 1
    return value if value in range(1, 9) else 1
