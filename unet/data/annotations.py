"""Masks from annotations in JSON: labelme (one file an image) and COCO (one file for all images)."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.draw import disk, polygon

from unet.data.mask_file import Key, MaskFile
from unet.data.source import Array
from unet.errors import UserError
from unet.labels import IGNORE_INDEX

BACKGROUND, CROWD = 0, IGNORE_INDEX
"""The keys of pixels outside all shapes and of COCO's crowds."""
LABELME_KEYS: Mapping[str, Key] = {"_background_": BACKGROUND, "__ignore__": CROWD}
"""The keys of labels that have a meaning in labelme: background, and what is not evaluated."""


@dataclass(frozen=True)
class Region:
    """The shape of one object: a polygon or several, a circle, or a bitmap.

    Attributes:
        key: its class name, or ``CROWD``.
        polygons: corners (x, y) of each polygon; the coordinates of the pixel in row r and column c are c to c + 1 and
            r to r + 1.
        circle: x, y and radius.
        bitmap: an array (h, w) and its left and upper corner.
    """

    key: Key
    polygons: tuple[Any, ...] = ()
    circle: tuple[float, float, float] | None = None
    bitmap: tuple[Array, int, int] | None = None

    def draw(self, mask: Array, value: int) -> None:
        """Set the pixels of a mask (H, W) whose centres lie inside the shape."""
        for corners in self.polygons:
            x, y = np.asarray(corners, float).reshape(-1, 2).T
            mask[polygon(y - 0.5, x - 0.5, mask.shape)] = value
        if self.circle is not None:
            x, y, radius = self.circle
            mask[disk((y - 0.5, x - 0.5), radius, shape=mask.shape)] = value
        if self.bitmap is not None:
            bitmap, left, top = self.bitmap
            rows, columns = np.nonzero(bitmap)
            rows, columns = rows + top, columns + left
            inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
            mask[rows[inside], columns[inside]] = value


@dataclass(frozen=True)
class DrawnShapes:
    """The shapes of an image of ``size`` (H, W); later ones are drawn over earlier ones."""

    size: tuple[int, int]
    regions: tuple[Region, ...]

    def draw(self) -> MaskFile:
        """Return the mask, with class names as keys."""
        keys = list(dict.fromkeys([BACKGROUND, *(region.key for region in self.regions)]))
        mask = np.zeros(self.size, np.uint8 if len(keys) <= 256 else np.uint16)
        for region in self.regions:
            region.draw(mask, keys.index(region.key))
        return MaskFile(mask, 2, names=tuple(keys))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises UserError if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}); export the annotations again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a {type(content).__name__} in JSON, expected labelme's or COCO's object")
    return content


def read_labelme(path: Path) -> DrawnShapes:
    """Read the polygons, rectangles, circles and masks of a labelme file. Raises UserError for other shapes."""
    content = read_json(path)
    if isinstance(content.get("images"), list):
        raise UserError(
            f"{path}: COCO annotations of many images, expected labelme's of one; if they are of all images, add "
            f"'data.source.mask=\"FILE.json\"', relative to data.root"
        )
    try:
        size = int(content["imageHeight"]), int(content["imageWidth"])
        shapes = [labelme_region(shape) for shape in content["shapes"]]
    except UnsupportedShape as error:
        raise UserError(
            f"{path}: a shape of type {error}, which has no area; expected polygon, rectangle, circle or mask"
        ) from None
    except Exception as error:  # malformed in any way
        raise UserError(
            f"{path}: not labelme's format ({type(error).__name__}: {error}); expected imageHeight, imageWidth and "
            f"shapes with label, shape_type and points"
        ) from None
    return DrawnShapes(size, tuple(shapes))


class UnsupportedShape(ValueError):
    """A shape without an area."""


def labelme_region(shape: Mapping[str, Any]) -> Region:
    """Return the region of a labelme shape."""
    if shape["label"] is None or not (label := str(shape["label"]).strip()):
        raise ValueError("a shape without label")
    kind, key = shape.get("shape_type") or "polygon", LABELME_KEYS.get(label, label)
    points = np.array(shape["points"], float).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a point that is not finite")
    if kind == "polygon" and len(points) >= 3:
        return Region(key, (points,))
    if kind == "rectangle" and len(points) >= 2:
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()  # of two corners or all four
        return Region(key, (((left, top), (right, top), (right, bottom), (left, bottom)),))
    if kind == "circle":
        (x, y), (x2, y2) = points.tolist()
        return Region(key, circle=(x, y, math.hypot(x2 - x, y2 - y)))
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            return Region(key, bitmap=(np.asarray(image) > 0, round(points[0, 0]), round(points[0, 1])))
    raise UnsupportedShape(kind if kind != "polygon" else f"polygon with {len(points)} points")


def read_coco(path: Path) -> dict[str, DrawnShapes]:
    """Return the shapes of every image of a COCO file by file name; those of crowds are ignored areas.

    Raises:
        UserError: it is no COCO file, or an annotation has no segmentation.
    """
    content = read_json(path)
    try:
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        regions: dict[Any, list[Region]] = {key: [] for key in images}
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            key = CROWD if annotation.get("iscrowd") else names[annotation["category_id"]]
            size = int(image["height"]), int(image["width"])
            regions[image["id"]].append(coco_region(key, annotation["segmentation"], size))
        return {
            str(image["file_name"]).replace("\\", "/"): DrawnShapes(
                (int(image["height"]), int(image["width"])), tuple(regions[key])
            )
            for key, image in images.items()
        }
    except Exception as error:  # malformed in any way
        raise UserError(
            f"{path}: not COCO's format ({type(error).__name__}: {error}); expected images, annotations with "
            f"segmentation, and categories"
        ) from None


def coco_region(key: Key, segmentation: Any, size: tuple[int, int]) -> Region:
    """Return the region of a COCO segmentation: a list of polygons, or a run-length encoding."""
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        counts = decode_counts(counts) if isinstance(counts, str) else counts
        if tuple(segmentation.get("size", size)) != size:
            raise ValueError(f"run lengths of size {segmentation['size']} for an image of {list(size)}")
        return Region(key, bitmap=(decode_rle(counts, size), 0, 0))
    if not segmentation:
        raise ValueError("an annotation without segmentation (boxes have no shape)")
    return Region(key, tuple(np.array(corners, float).reshape(-1, 2) for corners in segmentation))


def decode_rle(counts: Sequence[int], size: tuple[int, int]) -> Array:
    """Return the bitmap (H, W) of COCO's run lengths: of zeros first, then of ones, column by column."""
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} pixels for an image of {size[0] * size[1]}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")


def decode_counts(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed text.

    Each is a number of groups of five bits, the lowest first, in characters from ``"0"`` on; the sixth bit marks that
    another group follows, the fifth bit of the last one is the sign. From the fourth on, the difference to the number
    two before is stored. https://github.com/cocodataset/cocoapi (maskApi.c)
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - ord("0")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts
