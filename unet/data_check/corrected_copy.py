"""A corrected copy of a folder: masks as class indices, pictures turned as EXIF says, nothing that would stop."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unet.data.files import FilePair
from unet.data.folder import Folder
from unet.data.samples import progress
from unet.data.source import SPLITS, Array
from unet.data_check.file_facts import ItemFacts
from unet.data_check.findings import matches_after_rotation
from unet.data_check.mask_encoding import IGNORE, Encoding, classes_override, values_override
from unet.data_check.mask_values import Key, index_values, nearest_levels
from unet.data_check.survey import UNSPLIT, Survey
from unet.errors import UserError
from unet.io.atomic import atomic_folder
from unet.io.image_formats import SHOWN_AS, name_parts


@dataclass(frozen=True)
class CorrectedCopy:
    """A copy that was written.

    Attributes:
        source: the copy as a data set.
        overrides: what its training needs beside ``data=folder data.root=...``.
        left_out: a sentence on every item that is not in it.
    """

    source: Folder
    overrides: tuple[str, ...]
    left_out: list[str]


def write_corrected_copy(survey: Survey, out: Path) -> CorrectedCopy:
    """Write the items that can be used to ``out``, a folder that does not exist yet, whole or not at all.

    The splits become folders, so they stay what they were although items are left out. Images are copied as they are,
    unless they have to be turned.

    Raises:
        UserError: a data set that is no folder of files, masks that nobody can read, or an ``out`` that exists.
    """
    if not isinstance(survey.source, Folder):
        raise UserError(f"fix={out}: only a data=folder can be written anew; leave the key out")
    if out.exists():
        raise UserError(f"fix={out}: exists already; name a folder that does not, nothing is overwritten")
    if not survey.encoding.meaning:
        raise UserError(f"fix={out}: what the masks store is unknown; say it with data.source.classes and .values")
    left_out: list[str] = survey.problems + [fault for one in survey.facts for fault in one.faults]
    chosen = list(usable_items(survey, left_out))
    if not chosen:
        raise UserError(f"fix={out}: no item can be used; correct what the report names")
    try:
        with atomic_folder(out) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
            for split in {one.split for one in chosen}:
                for kind in ("images", "masks"):
                    (split_folder(folder, split) / kind).mkdir(parents=True)
            done = pool.map(lambda one: write_item(one, survey.encoding, split_folder(folder, one.split)), chosen)
            list(progress(done, len(chosen), "writing"))
    except OSError as error:
        raise UserError(f"fix={out}: cannot be written ({error}); nothing is left there") from None
    return CorrectedCopy(*corrected_folder(survey, out), left_out)


def usable_items(survey: Survey, left_out: list[str]) -> Iterator[ItemFacts]:
    """The items that a training can read once they are corrected, one of those that are equal; reasons for the rest.

    Of equal images the one in the test split stays, then that in the validation split.
    """
    seen: dict[bytes, str] = {}
    place = {split: order for order, split in enumerate((*reversed(SPLITS), UNSPLIT))}
    for one in sorted(survey.facts, key=lambda one: place[one.split]):
        image, mask = one.image, one.mask
        if image is None or mask is None:
            continue  # its fault is said already
        if image.not_finite:
            left_out.append(f"{one.name}: holds NaN or infinite values")
        elif image.size != mask.size and not matches_after_rotation(image, mask):
            left_out.append(f"{one.name}: image and mask differ in size")
        elif len(mask.size) != survey.spatial_dims:
            left_out.append(f"{one.name}: has another number of axes than the others")
        elif set(mask.counts) & set(survey.encoding.unknown):
            left_out.append(f"{one.name}: its mask holds values that stand for nothing")
        elif image.digest in seen and image.low < image.high:
            left_out.append(f"{one.name}: equals {seen[image.digest]}")
        else:
            seen[image.digest] = one.name
            yield one


def split_folder(root: Path, split: str) -> Path:
    return root if split == UNSPLIT else root / split


def write_item(one: ItemFacts, encoding: Encoding, folder: Path) -> None:
    """An item's image and mask into ``images`` and ``masks`` of a folder, both named as the image was."""
    files = one.files
    assert files is not None and one.image is not None and one.mask is not None
    stem = name_parts(files.image)[0]
    turn = one.image.size != one.mask.size
    if turn and one.image.stored.turned != 1:
        save_upright(files.image, folder / "images" / f"{stem}.png")
    else:
        shutil.copyfile(files.image, folder / "images" / files.image.name)
    save_labels(class_labels(files, encoding, turn and one.mask.stored.turned != 1), folder / "masks" / stem)


def save_upright(image: Path, path: Path) -> None:
    with Image.open(image) as opened:
        turned = ImageOps.exif_transpose(opened)
        assert turned is not None
        mode = SHOWN_AS.get(turned.mode, turned.mode)
        (turned if mode == turned.mode else turned.convert(mode)).save(path)


def class_labels(files: FilePair, encoding: Encoding, turn: bool = False) -> Array:
    """A mask file as class indices (*S), uint8; a value that was never counted is that of the nearest one."""
    pixels, spatial_dims = files.labels.pixels(files.mask)
    places, keys, _ = index_values(pixels, spatial_dims)
    strange = [key for key in keys if key not in encoding.meaning]
    near = dict(zip(strange, nearest_levels(strange, list(encoding.meaning)), strict=True)) if strange else {}
    table = np.array([encoding.label(encoding.meaning[near.get(key, key)]) for key in keys], np.uint8)
    labels = table[places]
    if turn:
        with Image.open(files.mask) as opened:
            indices = Image.fromarray(labels)
            indices.getexif().update(opened.getexif())
            labels = np.asarray(ImageOps.exif_transpose(indices))
    return labels


def save_labels(labels: Array, path: Path) -> None:
    """Pictures as PNG, sequences and volumes as .npy."""
    if labels.ndim == 2:
        Image.fromarray(labels).save(path.with_name(f"{path.name}.png"))
    else:
        np.save(path.with_name(f"{path.name}.npy"), labels)


def corrected_folder(survey: Survey, out: Path) -> tuple[Folder, tuple[str, ...]]:
    """The copy as a data set, and the overrides that make it one."""
    assert isinstance(survey.source, Folder)
    classes = survey.encoding.classes
    overrides = (classes_override(classes),)
    values: dict[Key, str] | None = None
    if IGNORE in survey.encoding.meaning.values():
        values = {**dict(enumerate(classes)), 255: IGNORE}
        overrides += (values_override(values),)
    mode = survey.source.mode
    if mode is not None:
        overrides += (f"data.source.mode={mode}",)
    return Folder(str(out), classes=classes, values=values, mode=mode), overrides
