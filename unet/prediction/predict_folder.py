"""Predict many files into a folder; completed files are skipped, and a file that fails does not stop the others."""

import glob
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet.data.patterns import natural_key
from unet.errors import UserError
from unet.failures import is_out_of_memory, one_line
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter
from unet.io.atomic import make_folder, read_json, write_json
from unet.io.image_formats import SUFFIXES, name_parts
from unet.network.geometry import times
from unet.prediction.overlay import contact_sheet
from unet.prediction.predict_file import predict_file
from unet.prediction.writing import label_name

RECORDS, PROBABILITIES, OVERLAYS, CONTACT_SHEET = "records", "probabilities", "overlays", "sheet.png"
DONE, SKIPPED, FAILED = "done", "already done", "failed"


@dataclass(frozen=True)
class FileResult:
    """The result of one file: its state, and a message with its size and warnings, or with its error."""

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
    prediction: PredictOptions = field(default_factory=PredictOptions)
    probabilities: bool = False
    overlays: bool = False
    overwrite: bool = False

    def record(self, path: Path) -> dict[str, Any]:
        """Return everything that the results of a file depend on."""
        status = path.stat()
        options = {key: value for key, value in asdict(self.prediction).items() if key != "batch"}
        options["tile"] = self.prediction.tile and list(self.prediction.tile)  # as JSON returns it
        return {
            "image": {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns},
            "checkpoint": self.checkpoint,
            "options": {**options, "probabilities": self.probabilities, "overlays": self.overlays},
        }


def list_images(pattern: str, key: str = "input") -> list[Path]:
    """Return the image files of a path: one file, the images of a folder, or the matches of a pattern.

    Raises UserError with the config key of the path if there are none.
    """
    path = Path(pattern).expanduser()
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
        raise UserError(f"{key}={pattern}: no images found; expected {expected}")
    return sorted(files, key=lambda file: (str(file.parent), natural_key(file)))


def predict_files(
    model: Segmenter,
    files: Sequence[Path],
    options: BatchOptions,
    report: Callable[[FileResult], None] = lambda result: None,
) -> list[FileResult]:
    """Predict every file and call ``report`` after each. Only errors that concern all files are raised.

    Raises:
        UserError: an option is invalid, or the output folder cannot be written to or holds the images.
    """
    options.prediction.check(model.net.spatial_dims)
    for name in ["", RECORDS, *[PROBABILITIES] * options.probabilities, *[OVERLAYS] * options.overlays]:
        make_folder(options.output / name, "output")
    for path in files:
        if path.parent.resolve() == options.output.resolve():
            raise UserError(f"output={options.output}: contains {path.name}, an input; choose another folder")
    results: list[FileResult] = []
    stems: dict[str, Path] = {}
    for path in files:
        first = stems.setdefault(name_parts(path)[0], path)
        if first is not path:
            message = f"{path}: its output files would have the same names as those of {first}; rename one of the two"
            result = FileResult(path, FAILED, message)
        else:
            result = predict_unless_done(model, path, options)
        report(result)
        results.append(result)
    return results


def predict_unless_done(model: Segmenter, path: Path, options: BatchOptions) -> FileResult:
    """Predict one file unless its outputs are up to date; return an error as a result."""
    begin = time.perf_counter()
    stem, name = name_parts(path)[0], label_name(path, model.net.spatial_dims)
    labels, record = options.output / name, options.output / RECORDS / f"{name}.json"
    probabilities = options.output / PROBABILITIES / f"{stem}.npy" if options.probabilities else None
    overlay = options.output / OVERLAYS / f"{stem}.png" if options.overlays else None
    warnings: list[str] = []
    try:
        current, previous = options.record(path), read_record(record)
        if previous == current and all(file is None or file.is_file() for file in (labels, probabilities, overlay)):
            return FileResult(path, SKIPPED)
        if labels.exists():
            if not previous and not options.overwrite:
                raise UserError(f"{labels}: exists and was not written by this command; overwrite=true replaces it")
            write_json(record, {"state": "begun"})  # incomplete, but written by this command
        size = predict_file(model, path, labels, options.prediction, probabilities, overlay, warnings.append)
        write_json(record, current)
    except Exception as error:
        return FileResult(path, FAILED, error_message(path, error), time.perf_counter() - begin)
    message = "; ".join([times(size), *(f"warning: {text}" for text in warnings)])
    return FileResult(path, DONE, message, time.perf_counter() - begin)


def read_record(path: Path) -> Mapping[str, Any]:
    """Return the record of a file, empty if it cannot be read."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def error_message(path: Path, error: Exception) -> str:
    """Return an error in one line that names the file."""
    if is_out_of_memory(error):
        return f"{path}: out of memory; use smaller tiles (tile=...) or batch=1"
    text = one_line(error) or type(error).__name__
    if not isinstance(error, UserError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if str(path) in text else f"{path}: {text}"


def write_contact_sheet(results: Sequence[FileResult], options: BatchOptions, model: Segmenter) -> Path | None:
    """Write the contact sheet of all files that succeeded in this or an earlier call; return its path."""
    stems = [name_parts(result.path)[0] for result in results if result.state in (DONE, SKIPPED)]
    if not stems:
        return None
    path = options.output / CONTACT_SHEET
    contact_sheet(path, [options.output / OVERLAYS / f"{stem}.png" for stem in stems], model.classes, model.colors)
    return path
