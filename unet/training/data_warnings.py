"""What a training says of its data before it starts: everything that makes a score doubtful and can be seen by then."""

from collections import Counter
from collections.abc import Iterator

from unet.data import SegmentationData
from unet.data.files import FilePair
from unet.data.samples import Samples, evenly_spaced
from unet.io.image_formats import name_parts
from unet.io.image_reader import open_stored
from unet.training.volume_grid import volume_grid

MAX_FILES = 1000
"""Number of photographs whose EXIF orientation is read."""
MAX_RANGE_RATIO = 50
"""Ratio of the largest values of float images above which they are taken for different units."""
MAX_SPACING_RATIO = 1.1
"""Ratio of voxel sizes above which they are taken for different ones."""


def data_warnings(data: SegmentationData) -> Iterator[str]:
    """Yield a sentence for each reason to doubt the scores of a training on this data set."""
    if data.in_two_splits:
        first, second = data.in_two_splits[0]
        yield (
            f"{len(data.in_two_splits)} images are in two splits, such as {first.name} and {second.name}, so the test "
            f"metrics will be too high"
        )
    if text := missing_classes(data):
        yield text
    yield from unit_warnings(list(data.samples.values()))
    yield from orientation_warnings(data.samples["train"])
    yield from grid_warnings(data.samples["train"])


def missing_classes(data: SegmentationData) -> str | None:
    """Return a warning if a class has no pixel in the training split; None if all have."""
    counts = dict(zip(data.source.classes, data.samples["train"].label_counts, strict=True))
    missing = [name for name, count in counts.items() if count == 0]
    if not missing:
        return None
    if len(missing) == len(counts) - 1:
        (only,) = counts.keys() - set(missing)
        return f"the training images have no pixel of any class but {only}, so the network can only learn to predict it"
    return f"the training images have no pixel of {', '.join(missing)}, which the network cannot learn"


def unit_warnings(splits: list[Samples]) -> Iterator[str]:
    """Warn of images of several types, and of float images in different units."""
    types = sum((part.dtypes for part in splits), Counter[str]())
    if len(types) > 1:
        counts = ", ".join(f"{count} of {name}" for name, count in types.most_common())
        yield f"the images are of several types ({counts}), and their values are not rescaled: convert them to one"
    highs = [high for part in splits for high in part.float_highs if high > 0]
    if highs and max(highs) > MAX_RANGE_RATIO * min(highs):
        yield f"the largest values of the images range from {min(highs):.4g} to {max(highs):.4g}: are all in one unit?"


def orientation_warnings(samples: Samples) -> Iterator[str]:
    """Warn of photographs that viewers show rotated, unlike their masks."""
    items = [samples.items[index] for index in evenly_spaced(len(samples), MAX_FILES)]
    pairs = [item.read for item in items if isinstance(item.read, FilePair)]
    photographs = [pair.image for pair in pairs if name_parts(pair.image)[1] in (".jpg", ".jpeg")]
    rotated = [path for path in photographs if open_stored(path).orientation != 1]
    if rotated:
        yield (
            f"{len(rotated)} training images, such as {rotated[0]}, have an EXIF orientation, which is not applied: if "
            f"their masks were drawn on the images as viewers show them, rotate the images first"
        )


def grid_warnings(samples: Samples) -> Iterator[str]:
    """Warn of NIfTI images whose voxels differ in their directions or their size."""
    grid = volume_grid(samples)
    if not grid:
        return
    if grid["axes"] is None:
        yield "the axes of the images point in different directions, and they are used as stored: reorient the images"
    low, high = grid["spacing"]
    if any(b > MAX_SPACING_RATIO * a for a, b in zip(low, high, strict=True)):
        sizes = " x ".join(f"{a:.3g} to {b:.3g}" if b > a else f"{a:.3g}" for a, b in zip(low, high, strict=True))
        yield f"the voxels of the images differ in size ({sizes} mm), which training ignores: resample the images"
