"""Predict many files into a folder; completed files are skipped, and a file that fails does not stop the others."""

import glob
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet.data.patterns import natural_key
from unet.errors import UserError
from unet.failures import is_out_of_memory, one_line
from unet.inference.options import PredictOptions
from unet.inference.segmenter import Segmenter, check_threshold
from unet.io.atomic import make_folder, read_json, write_json
from unet.io.image_formats import SUFFIXES, name_parts
from unet.io.image_reader import open_stored
from unet.network.geometry import times
from unet.prediction.georeference import geo_tags
from unet.prediction.image_files import ImageFiles, group_channels
from unet.prediction.overlay import contact_sheet
from unet.prediction.predict_file import predict_file
from unet.prediction.writing import check_label_format, label_suffix

RECORDS, PROBABILITIES, UNCERTAINTY, OVERLAYS = "records", "probabilities", "uncertainty", "overlays"
CONTACT_SHEET = "sheet.png"
DONE, SKIPPED, DOUBTFUL, FAILED = "done", "already done", "doubtful", "failed"
STATES = (DONE, SKIPPED, DOUBTFUL, FAILED)


@dataclass(frozen=True)
class FileResult:
    """The result of one file: its state, one of ``STATES``, and a message with its size and warnings, or its error.

    A doubtful file was predicted, now or earlier, and its labels may be wrong. ``stem`` is the path of its outputs in
    their folders, without suffix; None if it failed.
    """

    path: Path
    state: str
    message: str = ""
    seconds: float = 0.0
    stem: Path | None = None


@dataclass(frozen=True)
class OutputPaths:
    """The files that are written for an image; None: not wanted."""

    labels: Path
    record: Path
    probabilities: Path | None
    uncertainty: Path | None
    overlay: Path | None

    @property
    def results(self) -> list[Path]:
        """Return all files but the record."""
        outputs = (self.labels, self.probabilities, self.uncertainty, self.overlay)
        return [path for path in outputs if path is not None]


@dataclass(frozen=True)
class BatchOptions:
    """The outputs of every file, and their folder.

    Attributes:
        checkpoint: the SHA-256 of the checkpoint; with another checkpoint all files are predicted again.
        root: the folder of the images; their sub-folders in it are kept in ``output``. None: all files are written
            into ``output`` itself.
        labels: the format of the labels of 2-D images, a key of :data:`unet.prediction.writing.LABEL_FORMATS`.
        probabilities, uncertainty, overlays: whether they are written as well.
        overwrite: whether labels may replace a file that this command did not write.
    """

    output: Path
    checkpoint: str
    prediction: PredictOptions = field(default_factory=PredictOptions)
    root: Path | None = None
    labels: str = "index"
    probabilities: bool = False
    uncertainty: bool = False
    overlays: bool = False
    overwrite: bool = False

    def record(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Return everything that the results of an image in one or more files depend on."""
        options = {key: value for key, value in asdict(self.prediction).items() if key not in ("batch", "strict")}
        options["tile"] = self.prediction.tile and list(self.prediction.tile)  # as JSON returns it
        if options["temperature"] == 1:
            del options["temperature"]  # as in records of older versions
        outputs = {"labels": self.labels, "probabilities": self.probabilities, "overlays": self.overlays}
        outputs |= {"uncertainty": True} if self.uncertainty else {}
        first, *others = map(describe_file, paths)
        return {
            "image": first,
            **({"more_channels": others} if others else {}),
            "checkpoint": self.checkpoint,
            "options": {**options, **outputs},
        }

    def output_paths(self, path: Path, stem: Path, spatial_dims: int) -> OutputPaths:
        """Return the files of an image; ``stem`` is their path without suffix in ``output`` and its folders."""
        name = f"{stem}{label_suffix(path, spatial_dims, self.labels)}"
        return OutputPaths(
            self.output / name,
            self.output / RECORDS / f"{name}.json",
            self.output / PROBABILITIES / f"{stem}.npy" if self.probabilities else None,
            self.output / UNCERTAINTY / name if self.uncertainty else None,
            self.output / OVERLAYS / f"{stem}.png" if self.overlays else None,
        )

    def folder_of(self, path: Path) -> Path:
        """Return the folder of an image's outputs in ``output``. Raises UserError if the image is outside ``root``."""
        if self.root is None:
            return Path()
        parent = Path(os.path.normpath(path.parent))
        if not parent.is_relative_to(self.root):
            raise UserError(f"{path}: outside {self.root}, the folder that input begins with; predict it separately")
        folder = parent.relative_to(self.root)
        if folder.parts and folder.parts[0] in (RECORDS, PROBABILITIES, UNCERTAINTY, OVERLAYS):
            raise UserError(f"{path}: predict writes its own files into {folder.parts[0]}/; rename the folder")
        return folder


def describe_file(path: Path) -> dict[str, Any]:
    """Return the name, the size and the modification time of a file."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def list_images(pattern: str, key: str = "input") -> list[Path]:
    """Return the image files of a path: one file, the images of a folder, or the matches of a pattern.

    Raises UserError with the config key of the path if there are none.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file() and name_parts(file)[1] in SUFFIXES]
        expected = f"a folder with images ({', '.join(sorted(SUFFIXES))}); for those in sub-folders {key}='{path}/**/*'"
    elif path.exists():
        return [path]
    else:
        root, rest = split_pattern(path)
        names = glob.glob(rest, root_dir=root, recursive=True)
        matches = dict.fromkeys(Path(os.path.normpath(root / name)) for name in names)
        files = [file for file in matches if file.is_file()]
        expected = "a file, a folder, or a pattern such as 'scans/*.tif'"
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise UserError(f"{key}={pattern}: no images found; expected {expected}")
    return sorted(files, key=lambda file: (str(file.parent), natural_key(file)))


def split_pattern(path: Path) -> tuple[Path, str]:
    """Return the existing folder that a pattern begins with, and the rest; brackets in its name have no meaning."""
    root = next(folder for folder in (*path.parents, Path()) if folder.is_dir())
    return root, str(path.relative_to(root))


def input_root(pattern: str) -> Path:
    """Return the folder of the images that :func:`list_images` returns: what precedes the first wildcard."""
    path = Path(pattern).expanduser()
    return Path(os.path.normpath(path if path.is_dir() else split_pattern(path)[0]))


def predict_files(
    model: Segmenter,
    files: Sequence[Path],
    options: BatchOptions,
    report: Callable[[FileResult], None] = lambda result: None,
) -> list[FileResult]:
    """Predict every file and call ``report`` after each. Only errors that concern all files are raised.

    Files of the channels of one image are predicted together; see
    :func:`unet.prediction.image_files.group_channels`.

    Raises:
        UserError: an option is invalid, or the output folder cannot be written to or holds the images.
    """
    options.prediction.check(model.net.spatial_dims)
    check_threshold(options.prediction.threshold, model.classes)
    check_label_format(options.labels)
    enabled = {PROBABILITIES: options.probabilities, UNCERTAINTY: options.uncertainty, OVERLAYS: options.overlays}
    for name in ["", RECORDS, *(name for name, is_enabled in enabled.items() if is_enabled)]:
        make_folder(options.output / name, "output")
    check_output(files, options)
    results: list[FileResult] = []
    stems: dict[Path, Path] = {}
    for image in group_channels(files, model.description):
        result = predict_unless_done(model, image, options, stems)
        report(result)
        results.append(result)
    return results


def check_output(files: Sequence[Path], options: BatchOptions) -> None:
    """Raise UserError if the output folder holds images, or lies among sub-folders that the same command searches."""
    output = options.output.resolve()
    for path in files:
        parent = path.parent.resolve()
        if parent == output or output in parent.parents:
            raise UserError(f"output={options.output}: contains {path.name}, an input; choose another folder")
    root = options.root and options.root.resolve()
    if root and root in output.parents and any(path.parent.resolve() != root for path in files):
        raise UserError(
            f"output={options.output}: inside {options.root}, whose sub-folders are searched for images, and would be "
            f"searched next time; choose a folder outside"
        )


def predict_unless_done(
    model: Segmenter, image: ImageFiles, options: BatchOptions, stems: dict[Path, Path]
) -> FileResult:
    """Predict an image unless its outputs are up to date; return an error as a result.

    ``stems`` has the first file of each image so far by the path of its outputs, and gets that of this one.
    """
    begin, path, doubts = time.perf_counter(), image.path, []
    try:
        image.require_all()
        stem = options.folder_of(path) / image.stem
        if (first := stems.setdefault(stem, path)) != path:
            raise UserError(
                f"{path}: its output files would have the same names as those of {first}; rename one of the two"
            )
        outputs = options.output_paths(path, stem, model.net.spatial_dims)
        current, previous = options.record(image.paths), read_record(outputs.record)
        up_to_date = {key: previous.get(key) for key in current} == current
        if up_to_date and all(file.is_file() for file in outputs.results):
            return repeat_result(path, stem, previous, options.prediction.strict)
        if outputs.labels.exists() and not previous and not options.overwrite:
            raise UserError(f"{outputs.labels}: exists and was not written by this command; overwrite=true replaces it")
        for file in (*outputs.results, outputs.record):
            make_folder(file.parent, "output")
        if outputs.labels.exists():
            write_json(outputs.record, {"state": "begun"})  # incomplete, but written by this command
        size = predict_file(
            model,
            image.paths,
            outputs.labels,
            options.prediction,
            outputs.probabilities,
            outputs.overlay,
            doubts.append,
            options.labels,
            outputs.uncertainty,
        )
        notes = file_notes(path, outputs.labels)
        write_json(outputs.record, {**current, "doubts": doubts, "notes": notes})
    except Exception as error:
        return FileResult(path, FAILED, error_message(path, error), time.perf_counter() - begin)
    message = join_warnings(times(size), [*doubts, *notes])
    return FileResult(path, DOUBTFUL if doubts else DONE, message, time.perf_counter() - begin, stem)


def repeat_result(path: Path, stem: Path, record: Mapping[str, Any], strict: bool) -> FileResult:
    """Return the result of a file that an earlier call predicted, with the warnings in its record."""
    doubts, notes = record.get("doubts", []), record.get("notes", [])
    if doubts and strict:
        text = f"{'; '.join(doubts)} (refused because of strict=true; its labels were written without)"
        return FileResult(path, FAILED, f"{path}: {text}")
    message = join_warnings(SKIPPED * bool(doubts), [*doubts, *notes])
    return FileResult(path, DOUBTFUL if doubts else SKIPPED, message, stem=stem)


def join_warnings(text: str, warnings: Sequence[str]) -> str:
    return "; ".join(filter(None, [text, *(f"warning: {warning}" for warning in warnings)]))


def file_notes(path: Path, labels: Path) -> list[str]:
    """Return what a user should know of a file whose labels are right."""
    notes = []
    if (orientation := open_stored(path).orientation) != 1:
        notes.append(
            f"its EXIF orientation ({orientation}) is not applied, as in training: the labels match the pixels as "
            f"stored, which viewers show turned or mirrored"
        )
    if labels.suffix == ".png" and geo_tags(path):
        notes.append("a PNG has no georeference; labels=tiff keeps that of the image")
    return notes


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
    """Write the contact sheet of all files that were predicted in this or an earlier call; return its path.

    Raises UserError if its name is that of an image's labels.
    """
    stems = [result.stem for result in results if result.stem is not None]
    if not stems:
        return None
    path = options.output / CONTACT_SHEET
    if any(options.output_paths(path, stem, model.net.spatial_dims).labels == path for stem in stems):
        raise UserError(f"sheet=true: {path} holds the labels of an image; rename the image")
    contact_sheet(path, [options.output / OVERLAYS / f"{stem}.png" for stem in stems], model.classes, model.colors)
    return path
