"""Which pictures the page takes: uploaded ones, those of a folder, those the network was scored on."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from unet.data.formats import PICTURES, name_parts
from unet.data.source import Array, Item, Source
from unet.errors import UserError
from unet.geometry import times
from unet.labels import IGNORE_INDEX, variety
from unet.prediction.folder import files_of
from unet.prediction.reading import ImageReader, of_array, open_image
from unet.record import run_config

TAKEN = PICTURES | {".npy"}
MOST = 12
"""Pictures to pick from."""
LOOKED_AT = 48
OURS = "unet.data."
"""Where a config's ``_target_`` must lie to be called."""


@dataclass(frozen=True)
class Choice:
    """A picture to pick: what the page calls it, and how it is read."""

    name: str
    read: Callable[[], ImageReader]


def picture(path: Path, megapixels: float) -> ImageReader:
    """A picture file, opened as ``scripts/predict.py`` opens it, once its size is known to be no larger than asked.

    Raises:
        UserError: no picture, a damaged one, or one that is too large.
    """
    suffix = name_parts(path)[1]
    if suffix not in TAKEN:
        raise UserError(
            f"{path}: the page takes pictures ({', '.join(sorted(TAKEN))}); sequences and volumes are for "
            f"python scripts/predict.py"
        )
    if suffix in PICTURES:
        small_enough(path, shape_of(path), megapixels)  # before anything is unpacked
    stored = open_image(path, 2)
    small_enough(path, stored.size, megapixels)
    return stored


def shape_of(path: Path) -> tuple[int, ...]:
    """A picture's size by its header; nothing where Pillow does not know it, and the reader will say why."""
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # its own limit, which warns, is beyond ours
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            shape = image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return ()
    finally:
        Image.MAX_IMAGE_PIXELS = most
    if pages > 1:
        raise UserError(f"{path}: {pages} pages, and the page takes single pictures; use python scripts/predict.py")
    return shape


def small_enough(path: Path, size: tuple[int, ...], megapixels: float) -> None:
    if math.prod(size) > megapixels * 1e6:
        raise UserError(
            f"{path}: {times(size)} pixels, more than the {megapixels:g} million the page takes (max_megapixels); "
            f"python scripts/predict.py takes any size"
        )


def from_files(images: str, megapixels: float) -> list[Choice]:
    """The first pictures of a folder, or that match a pattern. Raises UserError where there are none."""
    found = [path for path in files_of(images, "images") if name_parts(path)[1] in TAKEN]
    if not found:
        raise UserError(f"images={images}: no pictures here; expected {', '.join(sorted(TAKEN))}")
    return [Choice(path.name, partial(picture, path, megapixels)) for path in found[:MOST]]


def from_run(checkpoint: Path) -> list[Choice]:
    """Pictures that the run of a checkpoint was scored on, its test (or else val) split's: the most mixed in labels.

    They are chosen among ``LOOKED_AT``, evenly from the split.

    Raises:
        UserError: no config two folders above the checkpoint, or data that cannot be found.
    """
    config = run_config(checkpoint.resolve().parent.parent)
    settings: Any = OmegaConf.to_container(config.data.source, resolve=True)
    foreign = [target for target in targets(settings) if not target.startswith(OURS)]
    if foreign:
        raise UserError(f"data={config.data.name}: its source {foreign[0]} is not of this project and is not called")
    try:
        source: Source = instantiate(settings, _convert_="all")
        items = source.items.get("test") or source.items["val"]
        places = np.unique(np.linspace(0, len(items) - 1, min(LOOKED_AT, len(items))).astype(int))
        looked_at = [items[place] for place in places]
        counts = [np.bincount(item.read()[1].ravel(), minlength=256)[:IGNORE_INDEX] for item in looked_at]
    except Exception as error:
        raise UserError(f"data={config.data.name}: {' '.join(str(error.__cause__ or error).split())}") from None
    order = np.argsort(-variety(np.stack(counts)), kind="stable")[:MOST]
    return [Choice(Path(looked_at[place].name).name, partial(of_item, looked_at[place])) for place in order]


def targets(settings: Any) -> Iterator[str]:
    """Every ``_target_`` in a config, however deep."""
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            yield str(settings["_target_"])
        settings = list(settings.values())
    if isinstance(settings, list):
        for one in settings:
            yield from targets(one)


def of_item(item: Item) -> ImageReader:
    pixels: Array = item.read()[0]
    return of_array(Path(item.name), pixels, 2, 2)
