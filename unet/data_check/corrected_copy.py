"""A corrected copy of a folder: masks as class indices, images rotated as EXIF says, without unusable items."""

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from unet.data.files import FilePair
from unet.data.folder import Folder
from unet.data.mask_file import Key, gray_as_color
from unet.data.samples import progress
from unet.data.source import SPLITS, Array
from unet.data_check.file_facts import ItemFacts
from unet.data_check.findings import matches_after_rotation
from unet.data_check.mask_encoding import IGNORE, Encoding, classes_override, values_override
from unet.data_check.mask_values import nearest_levels
from unet.data_check.survey import UNSPLIT, Survey
from unet.errors import UserError
from unet.io.atomic import atomic_folder
from unet.io.image_formats import name_parts
from unet.io.pictures import DISPLAY_MODES


@dataclass(frozen=True)
class CorrectedCopy:
    """A corrected copy of a folder.

    Attributes:
        source: the copy as a data set.
        overrides: what its training needs besides ``data=folder data.root=...``.
        exclusions: a message for every item that is not in it.
    """

    source: Folder
    overrides: tuple[str, ...]
    exclusions: list[str]


def write_corrected_copy(survey: Survey, out: Path) -> CorrectedCopy:
    """Write the usable items to ``out``, a new folder that appears complete or not at all.

    Each split is a folder, so the splits do not change although items are excluded. Images are copied as files unless
    they have to be rotated.

    Raises:
        UserError: the data set is not a folder, its masks cannot be mapped to classes, or ``out`` exists.
    """
    if not isinstance(survey.source, Folder):
        raise UserError(f"fix={out}: only data=folder can be corrected; remove the key")
    if survey.source.window_size:
        raise UserError(f"fix={out}: a corrected copy has whole images; remove data.source.window_size")
    if out.exists():
        raise UserError(f"fix={out}: exists; choose a new folder, because nothing is overwritten")
    if survey.encoding.alternatives:
        raise UserError(f"fix={out}: 255 may be a class or unlabelled; add the line of the report that is right")
    if not survey.encoding.meaning:
        raise UserError(f"fix={out}: the masks have unknown values; set data.source.classes and data.source.values")
    names = [item.files.name.replace("/", "_") for item in survey.facts if item.files]
    if len(set(names)) < len(names) and len({item.split for item in survey.facts}) == 1:
        raise UserError(f"fix={out}: names of images and their sub-folders, joined by _, are not unique; rename them")
    exclusions = survey.all_errors
    items = list(usable_items(survey, exclusions))
    if not items:
        raise UserError(f"fix={out}: no item can be used; correct the errors in the report")
    try:
        with atomic_folder(out) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
            for split in {item.split for item in items}:
                for kind in ("images", "masks"):
                    (split_folder(folder, split) / kind).mkdir(parents=True)
            results = pool.map(lambda item: write_item(item, survey.encoding, split_folder(folder, item.split)), items)
            list(progress(results, len(items), "writing"))
    except OSError as error:
        raise UserError(f"fix={out}: cannot be written ({error}); nothing was left there") from None
    classes, reading = survey.encoding.classes, survey.source.read_options
    overrides = [classes_override(classes)]
    values: dict[Key, str] | None = None
    if IGNORE in survey.encoding.meaning.values():
        values = {**dict(enumerate(classes)), 255: IGNORE}
        overrides.append(values_override(values))
    settings: dict[str, Any] = {"mode": reading.mode, "pages": reading.pages}
    settings["nodata"] = reading.nodata if reading.declared_nodata else "none"
    settings = {key: value for key, value in settings.items() if value is not None}
    overrides += [f"data.source.{key}={value}" for key, value in settings.items()]
    return CorrectedCopy(Folder(str(out), classes=classes, values=values, **settings), tuple(overrides), exclusions)


def usable_items(survey: Survey, exclusions: list[str]) -> Iterator[ItemFacts]:
    """Yield the items that training can read once they are corrected; append a reason for each other item.

    Of equal images the one in the test split is yielded, else the one in the validation split.
    """
    first_with: dict[bytes, str] = {}
    splits = [*reversed(SPLITS), UNSPLIT]
    for item in sorted(survey.facts, key=lambda item: splits.index(item.split)):
        image, mask = item.image, item.mask
        if image is None or mask is None:
            continue  # one of the survey's errors
        if image.num_infinite:
            exclusions.append(f"{item.name}: contains infinite values")
        elif image.size != mask.size and not matches_after_rotation(image, mask):
            exclusions.append(f"{item.name}: image and mask differ in size")
        elif len(mask.size) != survey.spatial_dims:
            exclusions.append(f"{item.name}: has {len(mask.size)} axes, most items {survey.spatial_dims}")
        elif set(mask.counts) & set(survey.encoding.unknown):
            exclusions.append(f"{item.name}: its mask contains values without a class")
        elif image.digest in first_with and image.low < image.high:
            exclusions.append(f"{item.name}: equals {first_with[image.digest]}")
        else:
            first_with[image.digest] = item.name
            yield item


def split_folder(root: Path, split: str) -> Path:
    return root if split == UNSPLIT else root / split


def write_item(item: ItemFacts, encoding: Encoding, folder: Path) -> None:
    """Write an item to ``images`` and ``masks`` of a folder, both files with the item's name, sub-folders joined."""
    files = item.files
    assert files is not None and item.image is not None and item.mask is not None
    stem = files.name.replace("/", "_")
    rotate = item.image.size != item.mask.size
    if files.more_channels:
        np.save(folder / "images" / f"{stem}.npy", files.read_image(item.mask.size))
    elif rotate and item.image.format.orientation != 1:
        save_upright(files.image, folder / "images" / f"{stem}.png")
    else:
        shutil.copyfile(files.image, folder / "images" / f"{stem}{name_parts(files.image)[1]}")
    labels = class_labels(files, encoding, rotate and item.mask.format.orientation != 1)
    if labels.ndim == 2:
        Image.fromarray(labels).save(folder / "masks" / f"{stem}.png")
    else:
        np.save(folder / "masks" / f"{stem}.npy", labels)


def save_upright(image: Path, path: Path) -> None:
    """Save an image with its EXIF rotation applied."""
    with Image.open(image) as file:
        upright = ImageOps.exif_transpose(file)
        mode = DISPLAY_MODES.get(upright.mode, upright.mode)
        (upright if mode == upright.mode else upright.convert(mode)).save(path)


def class_labels(files: FilePair, encoding: Encoding, rotate: bool = False) -> Array:
    """Return a mask file as class indices (*S), uint8; a value without a class has that of the nearest value."""
    mask = files.read_mask()
    indices, keys = mask.index(colors=not mask.is_grayscale)
    if any(isinstance(key, tuple) for key in encoding.meaning):  # of a grey or palette mask among colour masks
        palette: Mapping[Key, Key] = {**mask.palette} if mask.palette else {}
        keys = [key if key in encoding.meaning else palette.get(key, gray_as_color(key)) for key in keys]
    unknown = [key for key in keys if key not in encoding.meaning]
    level_of = dict(zip(unknown, nearest_levels(unknown, list(encoding.meaning)), strict=True)) if unknown else {}
    table = np.array([encoding.label(encoding.meaning[level_of.get(key, key)]) for key in keys], np.uint8)
    labels = table[indices]
    if rotate:
        with Image.open(files.mask) as file:
            image = Image.fromarray(labels)
            image.getexif().update(file.getexif())
            labels = np.asarray(ImageOps.exif_transpose(image))
    return labels
