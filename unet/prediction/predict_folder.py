"""Predict many files into a folder: files that are done are skipped, a file that fails does not stop the others."""

import glob
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet.data.files import natural_key
from unet.errors import UserError
from unet.failures import is_memory, one_line
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter
from unet.io.atomic import make_folder, read_json, write_json
from unet.io.image_formats import SUFFIXES, name_parts
from unet.network.geometry import times
from unet.prediction.overlay import contact_sheet
from unet.prediction.predict_file import predict_file
from unet.prediction.writing import label_name

RECORDS, PROBABILITIES, OVERLAYS, SHEET = "records", "probabilities", "overlays", "sheet.png"
DONE, SKIPPED, FAILED = "done", "was done", "failed"
BEGUN = {"state": "begun"}
"""The record of a file whose labels are being replaced."""


@dataclass(frozen=True)
class FileResult:
    """The outcome of one file: :data:`DONE`, :data:`SKIPPED` or :data:`FAILED`; its size and warnings, or its error."""

    path: Path
    state: str
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class BatchOptions:
    """The outputs of every file, and their folder.

    Attributes:
        checkpoint: the SHA-256 of the checkpoint; with another checkpoint all files are predicted again.
        probabilities, overlays: whether they are written as well.
        overwrite: whether labels may replace a file that this command did not write.
    """

    output: Path
    checkpoint: str
    options: PredictOptions = field(default_factory=PredictOptions)
    probabilities: bool = False
    overlays: bool = False
    overwrite: bool = False

    def record(self, path: Path) -> dict[str, Any]:
        """Return everything that the results depend on."""
        status = path.stat()
        outputs = {"probabilities": self.probabilities, "overlays": self.overlays}
        how = {key: value for key, value in asdict(self.options).items() if key != "batch"}
        how["tile"] = self.options.tile and list(self.options.tile)  # as JSON returns it
        return {
            "image": {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns},
            "checkpoint": self.checkpoint,
            "options": {**how, **outputs},
        }


def list_images(chosen: str, key: str = "input") -> list[Path]:
    """Return the files that ``input`` (or another ``key``) names: one file, the images of a folder, or a pattern.

    Raises:
        UserError: there are none.
    """
    path = Path(chosen).expanduser()
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file() and name_parts(file)[1] in SUFFIXES]
        expected = f"a folder with images ({', '.join(sorted(SUFFIXES))})"
    elif path.exists():
        return [path]
    else:
        files = [file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()]
        expected = "a file, a folder, or a pattern such as 'scans/*.tif'"
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise UserError(f"{key}={chosen}: no images here; expected {expected}")
    return sorted(files, key=lambda file: (str(file.parent), natural_key(file)))


def predict_files(
    model: Segmenter,
    files: Sequence[Path],
    order: BatchOptions,
    report: Callable[[FileResult], None] = lambda row: None,
) -> list[FileResult]:
    """Predict every file and call ``report`` after each. Only errors that concern all files are raised.

    Raises:
        UserError: the output folder cannot be written to, or holds the images.
    """
    order.options.check(model.net.spatial_dims)
    folders = ["", RECORDS, *[PROBABILITIES] * order.probabilities, *[OVERLAYS] * order.overlays]
    for name in folders:
        make_folder(order.output / name, "output")
    for path in files:
        if path.parent.resolve() == order.output.resolve():
            raise UserError(f"output={order.output}: holds {path.name}, an input; choose another folder")
    rows: list[FileResult] = []
    stems: dict[str, Path] = {}
    for path in files:
        first = stems.setdefault(name_parts(path)[0], path)
        if first is not path:
            row = FileResult(path, FAILED, f"{path}: its results would be called as those of {first} are; rename one")
        else:
            row = attempt(model, path, label_name(path, model.net.spatial_dims), order)
        report(row)
        rows.append(row)
    return rows


def attempt(model: Segmenter, path: Path, name: str, order: BatchOptions) -> FileResult:
    """Predict one file unless it is done; return an error as a result."""
    begin = time.perf_counter()
    labels, record = order.output / name, order.output / RECORDS / f"{name}.json"
    stem = name_parts(path)[0]
    shares = order.output / PROBABILITIES / f"{stem}.npy" if order.probabilities else None
    overlay = order.output / OVERLAYS / f"{stem}.png" if order.overlays else None
    try:
        current = order.record(path)
        previous = read_record(record)
        if previous == current and all(file.is_file() for file in (labels, shares, overlay) if file is not None):
            return FileResult(path, SKIPPED)
        if labels.exists() and not previous and not order.overwrite:
            raise UserError(
                f"{labels}: is there already and was not written by this command; overwrite=true replaces it"
            )
        if labels.exists():
            write_json(record, BEGUN)  # not done, but written by this command
        warned: list[str] = []
        size = predict_file(model, path, labels, order.how, shares, overlay, warned.append)
        write_json(record, current)
    except Exception as error:
        return FileResult(path, FAILED, error_message(path, error), time.perf_counter() - begin)
    message = "; ".join([times(size), *(f"warning: {text}" for text in warned)])
    return FileResult(path, DONE, message, time.perf_counter() - begin)


def read_record(path: Path) -> Mapping[str, Any]:
    """Return the record of a file, empty if it cannot be read."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def error_message(path: Path, error: Exception) -> str:
    """Return the error message of a file in one line that names it."""
    if is_memory(error):
        return f"{path}: not enough memory; give smaller tiles (tile=...) or batch=1"
    text = one_line(error) or type(error).__name__
    if not isinstance(error, UserError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if str(path) in text else f"{path}: {text}"


def write_contact_sheet(rows: Sequence[FileResult], order: BatchOptions, model: Segmenter) -> Path | None:
    """Write the contact sheet of all files that are done, now or earlier."""
    overlays = [
        order.output / OVERLAYS / f"{name_parts(row.path)[0]}.png" for row in rows if row.state in (DONE, SKIPPED)
    ]
    if not overlays:
        return None
    contact_sheet(order.output / SHEET, overlays, model.classes, model.colors)
    return order.output / SHEET
