"""Read where the pixels of an image lie: the tags of a GeoTIFF, or the world file beside an image."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tifffile

from unet.io.image_formats import name_parts

TRANSFORMATION, GEO_KEYS = 34264, (34735, 34736, 34737)
GEO_TAGS = (33550, 33922, TRANSFORMATION, *GEO_KEYS, 50844)
"""ModelPixelScale, ModelTiepoint, ModelTransformation; GeoKeyDirectory and its two parameters; RPCCoefficient.

Source: OGC GeoTIFF 1.1, https://docs.ogc.org/is/19-008r4/19-008r4.html.
"""
SHORT, DOUBLE = 3, 12
"""The TIFF data types of uint16 and float64."""
PIXEL_IS_AREA = (1, 1, 0, 1, 1025, 0, 1, 1)
"""A GeoKeyDirectory without a coordinate system: coordinates are those of the corners of pixels."""

ExtraTag = tuple[int, int, int, Any, bool]
"""Code, data type, count and value of a tag of :func:`tifffile.imwrite`, and whether only the first page has it."""


def is_tiff(path: Path) -> bool:
    return name_parts(path)[1] in (".tif", ".tiff")


def geo_tags(path: Path) -> list[ExtraTag]:
    """Return the tags that georeference an image file; empty if neither its tags nor a world file do."""
    tags: list[ExtraTag] = []
    if is_tiff(path):
        with suppress(Exception), tifffile.TiffFile(path) as tiff:  # the reader reports a damaged file
            found = tiff.pages.first.tags
            tags = [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found if tag.code in GEO_TAGS]
    if not {tag[0] for tag in tags} - set(GEO_KEYS) and (world := read_world_file(path)):
        tags.append((TRANSFORMATION, DOUBLE, 16, transformation(world), True))
        if GEO_KEYS[0] not in {tag[0] for tag in tags}:
            tags.append((GEO_KEYS[0], SHORT, 8, PIXEL_IS_AREA, True))
    return sorted(tags)


def resolution(path: Path) -> dict[str, Any]:
    """Return the resolution of a TIFF as arguments of :func:`tifffile.imwrite`; empty for other files."""
    if is_tiff(path):
        with suppress(Exception), tifffile.TiffFile(path) as tiff:
            tags = tiff.pages.first.tags
            values = [tags[code].value for code in (282, 283)]
            return {"resolution": values, "resolutionunit": int(tags[296].value) if 296 in tags else 2}
    return {}


def read_world_file(path: Path) -> list[float] | None:
    """Return the six numbers of the world file of an image (``a.tfw`` of ``a.tif``), or None without a valid one."""
    suffix = path.suffix.lower()
    names = (suffix[:2] + suffix[-1:] + "w", f"{suffix}w", ".wld")
    for name in (*names, *map(str.upper, names)):
        with suppress(OSError, ValueError):
            numbers = [float(word.replace(",", ".")) for word in path.with_suffix(name).read_text().split()]
            if len(numbers) == 6:
                return numbers
    return None


def transformation(world: Sequence[float]) -> tuple[float, ...]:
    """Return the ModelTransformation of a world file.

    A world file has the coordinates of the centre of the first pixel; the tag has those of its corner.
    """
    a, d, b, e, c, f = world
    return (a, b, 0, c - (a + b) / 2, d, e, 0, f - (d + e) / 2, 0, 0, 0, 0, 0, 0, 0, 1)
