"""Many files predicted into a folder: what is done is not done again, what fails is named and stops nothing."""

import glob
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet.apply import How
from unet.data.files import natural
from unet.data.formats import SUFFIXES, name_parts
from unet.errors import UserError
from unet.faults import is_memory, plain
from unet.geometry import times
from unet.prediction.one import predict_file
from unet.prediction.overlay import contact_sheet
from unet.prediction.writing import label_name
from unet.record import make_folder, read_json, write_json
from unet.segmenter import Segmenter

RECORDS, PROBABILITIES, OVERLAYS, SHEET = "records", "probabilities", "overlays", "sheet.png"
DONE, SKIPPED, FAILED = "done", "was done", "failed"
BEGUN = {"state": "begun"}
"""The record of labels that are being replaced."""


@dataclass(frozen=True)
class Row:
    """The outcome of one file: :data:`DONE`, :data:`SKIPPED` or :data:`FAILED`; its size and warnings, or its error."""

    path: Path
    state: str
    told: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Order:
    """What is made of every file, and where.

    Attributes:
        checkpoint: the SHA-256 of the network's file: another network makes everything anew.
        probabilities, overlays: whether they are written beside the labels.
        overwrite: whether labels may replace a file of their name that this command did not write.
    """

    output: Path
    checkpoint: str
    how: How = field(default_factory=How)
    probabilities: bool = False
    overlays: bool = False
    overwrite: bool = False

    def record(self, path: Path) -> dict[str, Any]:
        """All that the results depend on."""
        status = path.stat()
        made = {"probabilities": self.probabilities, "overlays": self.overlays}
        how = {key: value for key, value in asdict(self.how).items() if key != "batch"}
        how["tile"] = self.how.tile and list(self.how.tile)  # as JSON gives it back
        return {
            "image": {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns},
            "checkpoint": self.checkpoint,
            "options": {**how, **made},
        }


def files_of(chosen: str, key: str = "input") -> list[Path]:
    """The files that ``input`` (or another ``key``) names: one, all images of a folder, or what a pattern matches.

    Raises:
        UserError: nothing there.
    """
    path = Path(chosen).expanduser()
    if path.is_dir():
        found = [one for one in path.iterdir() if one.is_file() and name_parts(one)[1] in SUFFIXES]
        expected = f"a folder with images ({', '.join(sorted(SUFFIXES))})"
    elif path.exists():
        return [path]
    else:
        found = [one for one in map(Path, glob.glob(str(path), recursive=True)) if one.is_file()]
        expected = "a file, a folder, or a pattern such as 'scans/*.tif'"
    found = [one for one in found if not one.name.startswith(".")]
    if not found:
        raise UserError(f"{key}={chosen}: no images here; expected {expected}")
    return sorted(found, key=lambda one: (str(one.parent), natural(one)))


def predict_files(
    model: Segmenter, files: Sequence[Path], order: Order, told: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """Predict every file; ``told`` hears of each as it is done. Only what stops all of them is raised.

    Raises:
        UserError: an output folder that cannot be written to, or that holds the images.
    """
    order.how.check(model.net.spatial_dims)
    folders = ["", RECORDS, *[PROBABILITIES] * order.probabilities, *[OVERLAYS] * order.overlays]
    for name in folders:
        make_folder(order.output / name, "output")
    for path in files:
        if path.parent.resolve() == order.output.resolve():
            raise UserError(f"output={order.output}: holds {path.name}, an input; choose another folder")
    rows: list[Row] = []
    stems: dict[str, Path] = {}
    for path in files:
        first = stems.setdefault(name_parts(path)[0], path)
        if first is not path:
            row = Row(path, FAILED, f"{path}: its results would be called as those of {first} are; rename one")
        else:
            row = attempt(model, path, label_name(path, model.net.spatial_dims), order)
        told(row)
        rows.append(row)
    return rows


def attempt(model: Segmenter, path: Path, name: str, order: Order) -> Row:
    """Predict one file unless it is done; an error becomes a row."""
    begin = time.perf_counter()
    labels, record = order.output / name, order.output / RECORDS / f"{name}.json"
    stem = name_parts(path)[0]
    shares = order.output / PROBABILITIES / f"{stem}.npy" if order.probabilities else None
    overlay = order.output / OVERLAYS / f"{stem}.png" if order.overlays else None
    try:
        wanted = order.record(path)
        known = recorded(record)
        if known == wanted and all(file.is_file() for file in (labels, shares, overlay) if file is not None):
            return Row(path, SKIPPED)
        if labels.exists() and not known and not order.overwrite:
            raise UserError(
                f"{labels}: is there already and was not written by this command; overwrite=true replaces it"
            )
        if labels.exists():
            write_json(record, BEGUN)  # until all is written anew nothing is done, but the labels stay this command's
        warned: list[str] = []
        size = predict_file(model, path, labels, order.how, shares, overlay, warned.append)
        write_json(record, wanted)
    except Exception as error:
        return Row(path, FAILED, reason(path, error), time.perf_counter() - begin)
    message = "; ".join([times(size), *(f"warning: {text}" for text in warned)])
    return Row(path, DONE, message, time.perf_counter() - begin)


def recorded(path: Path) -> Mapping[str, Any]:
    """What was written of a file, nothing where that cannot be read."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def reason(path: Path, error: Exception) -> str:
    """Why a file failed, in one sentence that names it."""
    if is_memory(error):
        return f"{path}: not enough memory; give smaller tiles (tile=...) or batch=1"
    text = plain(error) or type(error).__name__
    if not isinstance(error, UserError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if str(path) in text else f"{path}: {text}"


def sheet_of(rows: Sequence[Row], order: Order, model: Segmenter) -> Path | None:
    """The contact sheet of all files that are done, now or before."""
    overlays = [
        order.output / OVERLAYS / f"{name_parts(row.path)[0]}.png" for row in rows if row.state in (DONE, SKIPPED)
    ]
    if not overlays:
        return None
    contact_sheet(order.output / SHEET, overlays, model.classes, model.colors)
    return order.output / SHEET
