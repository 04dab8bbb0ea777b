"""Invalid inputs and the patterns of their error messages, for tests/test_bad_inputs.py.

Each :class:`Input` runs in a working directory of its own. To add one, add a line to ``INPUTS``; those of prediction,
evaluation, export and the demo are in bad_inputs_prediction.py.
"""

import contextlib
import copy
import functools
import io
import json
import os
import pickle
import runpy
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from conftest import ROOT, TINY, config
from folders import CLASSES, LISTS, folder_of, noise, save, scanned, swap
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image
from sweeps import sweep_of

from unet import load
from unet.data.folder import Folder
from unet.data_check.findings import ERROR, collect_findings
from unet.data_check.survey import survey_data
from unet.errors import UserError
from unet.inference.segmenter import Segmenter
from unet.io.run_folder import ensure_new_or_resuming
from unet.report import analyze
from unet.report.summary_text import summary_lines
from unet.runs.error_messages import format_error
from unet.training.train import train

DATA = Path("data")
X, M = DATA / "images" / "x.png", DATA / "masks" / "x.png"
"""The image that is damaged, or its mask."""
CHECKPOINT = Path("best.ckpt")
DESCRIPTION: dict[str, Any] = {
    "model": {"in_channels": 2, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": 2},
    "classes": ["sky", "sea", "land"],
    "colors": [[0, 0, 0], [0, 0, 255], [0, 255, 0]],
    "mean": [10.0, 20.0],
    "std": [2.0, 4.0],
    "log_weights": None,
}


@dataclass(frozen=True)
class Outcome:
    """The exit status and the error message, or a description of a valid result."""

    status: int
    message: str


@dataclass(frozen=True)
class Input:
    """An invalid or unusual input.

    Attributes:
        name: a description.
        run: a function that creates it in the working directory and runs a command on it.
        pattern: a regular expression that the message must match.
        status: 1: error, 2: wrong usage, 0: valid result.
    """

    name: str
    run: Callable[[], Outcome]
    pattern: str
    status: int = 1


def call_and_catch(function: Callable[[], str]) -> Outcome:
    """Call a function and return its result, or its error as a command prints it."""
    try:
        return Outcome(0, function())
    except UserError as error:
        return Outcome(1, format_error(error))


def training_data() -> None:
    """Write five RGB images with masks of two classes: a, b and x for training, c and d for validation."""
    folder_of(DATA, list("abcdx"))
    (DATA / "train.txt").write_text("a\nb\nx\n")
    (DATA / "val.txt").write_text("c\nd\n")


def in_data(name: str, damage: Callable[[], Any], pattern: str, status: int = 1, **options: Any) -> Input:
    """Read a damaged folder of images as training does; ``check_data`` must agree."""

    def read() -> str:
        samples = scanned(DATA, **options).samples["train"]
        indices = [index for index, item in enumerate(samples.items) if Path(item.name).name.startswith("x")]
        if not indices:
            return f"{len(samples)} images train"
        image, target = samples[indices[0]]
        size = " x ".join(map(str, image.shape))
        pixel = ", ".join(f"{value:g}" for value in image.reshape(-1, image.shape[-1])[0])
        background, cell, ignored = (int((target == label).sum()) for label in (0, 1, 255))
        labels = f"{background} of background, {cell} of cell, {ignored} ignored"
        return f"{size} of {image.dtype}, the first {pixel}; labels: {labels}"

    def run() -> Outcome:
        training_data()
        damage()
        outcome = call_and_catch(read)
        try:
            data = survey_data(Folder(str(DATA), **{"classes": CLASSES, "splits": LISTS, **options}))
            errors = [finding.text for finding in collect_findings(data) if finding.kind == ERROR]
        except UserError as error:
            errors = [str(error)]
        assert bool(errors) == (outcome.status == 1), (outcome, errors)
        return outcome

    return Input(name, run, pattern, status)


@functools.cache
def composed() -> Any:
    values = ["data=folder", "data.root=data", "data.source.classes=[background,cell]", "data.batch_size=2"]
    small = [value for value in TINY if not value.startswith("data.")]
    splits = "data.source.splits={train: train.txt, val: val.txt, test: null}"
    return config(*values, *small, splits, "data.crop.picture=32", "trainer.enable_progress_bar=false")


def in_config(override: str, pattern: str, damage: Callable[[], Any] = list) -> Input:
    """Train with an invalid value."""

    def start() -> str:
        values = copy.deepcopy(composed())
        for parsed in OverridesParser.create().parse_overrides([override]):
            OmegaConf.update(values, parsed.key_or_group, parsed.value())
        with contextlib.redirect_stdout(io.StringIO()):
            ensure_new_or_resuming(Path("run"), values.ckpt_path)
            train(values, Path("run"))
        return "trained"

    def run() -> Outcome:
        training_data()
        damage()
        return call_and_catch(start)

    return Input(override, run, pattern)


def typed(name: str, script: str, *words: str, gets: str, status: int = 1, make: Callable[[], Any] = list) -> Input:
    """Run a command line."""

    def run() -> Outcome:
        make()
        error = io.StringIO()
        with mock.patch.object(sys, "argv", [script, *words]), contextlib.redirect_stdout(io.StringIO()) as output:
            try:
                with contextlib.redirect_stderr(error):
                    runpy.run_path(str(ROOT / script), run_name="__main__")
                return Outcome(0, output.getvalue())
            except SystemExit as end:
                if isinstance(end.code, str):
                    return Outcome(1, end.code)
                prefixes = ("error: ", f"{Path(script).name}: error: ")
                lines = [line for line in error.getvalue().splitlines() if line.startswith(prefixes)]
                return Outcome(int(end.code or 0), lines[-1] if lines else error.getvalue())

    return Input(name, run, gets, status)


def in_checkpoint(name: str, damage: Callable[[], Any], pattern: str) -> Input:
    """Load a damaged checkpoint."""

    def run() -> Outcome:
        save_net(DESCRIPTION)
        damage()
        return call_and_catch(lambda: f"a network of {len(load(CHECKPOINT).classes)} classes")

    return Input(name, run, pattern)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Segmenter(DESCRIPTION).state_dict()


def save_net(description: Any, **weights: Any) -> None:
    """Save a checkpoint with a description; ``weights`` replaces weights by name, None removes one."""
    values = {key: value for key, value in (state() | weights).items() if value is not None}
    torch.save({"description": description, "state_dict": values}, CHECKPOINT)


def with_keys(**keys: Any) -> Callable[[], None]:
    """Return a function that saves a checkpoint with other keys, those of ``model`` with the prefix ``model_``."""
    description = copy.deepcopy(DESCRIPTION)
    for key, value in keys.items():
        (description["model"] if key.startswith("model_") else description)[key.removeprefix("model_")] = value
    return lambda: save_net(description)


def weight(name: str, value: Any) -> Callable[[], None]:
    """Return a function that saves a checkpoint with another weight."""
    return lambda: save_net(DESCRIPTION, **{name: value})


def reports(value: Any) -> Callable[[Path], Any]:
    return lambda sweep: write(sweep / "reports.json", json.dumps({"reports": value}))


def in_report(name: str, damage: Callable[[Path], Any], pattern: str, status: int = 1, **options: Any) -> Input:
    """Report on a damaged sweep of two arms and two seeds."""
    sweep = Path("sweep")

    def report() -> str:
        analysis = analyze(sweep, **options)
        missing_runs = "; ".join(
            f"{missing.name} is {missing.state}: {missing.reason}" for missing in analysis.missing_runs
        )
        return missing_runs or " ".join(summary_lines(analysis))

    def run() -> Outcome:
        sweep.mkdir()
        sweep_of(sweep, [{"model.down": "max"}, {"model.down": "avg"}], np.array([[0.5, 0.6], [0.4, 0.45]]))
        damage(sweep)
        return call_and_catch(report)

    return Input(name, run, pattern, status)


def first(sweep: Path, name: str) -> Path:
    """Return a file of a sweep's first run."""
    return min(path for path in sweep.iterdir() if path.is_dir()) / name


def cut(path: Path, fraction: float) -> None:
    """Truncate a file to a fraction of its size."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def resave(path: Path, image: Image.Image, suffix: str = "", **options: Any) -> Path:
    """Replace a file by another image."""
    path.unlink()
    path = path.with_suffix(suffix or path.suffix)
    image.save(path, **options)
    return path


def array(path: Path, values: Any) -> Path:
    """Replace a picture by an array."""
    path.unlink()
    path = path.with_suffix(".npy")
    np.save(path, values, allow_pickle=True)
    return path


def bad_png(width: int, height: int) -> bytes:
    """Return a PNG with a size in its header and ten bytes of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(10))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bad_npy(shape: str) -> bytes:
    """Return an array file with a shape in its header and a hundred bytes of values."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(100)


def write_npy(content: bytes) -> None:
    X.unlink()
    write(X.with_suffix(".npy"), content)


def rename_x(name: str) -> None:
    """Rename image and mask x and remove them from the list."""
    for path in (X, M):
        path.rename(path.with_name(name))
    (DATA / "train.txt").write_text("a\nb")


def two_lines() -> None:
    rename_x("x\ny.png")
    write(X.with_name("x\ny.png"), "")


def every(like: Path, values: Any) -> None:
    """Replace all images (or all masks) by these values."""
    for path in sorted(like.parent.iterdir()):
        swap(path, values)


def arrays(*shape: int) -> None:
    """Replace all images and masks by arrays of that shape."""
    for path in sorted([*X.parent.iterdir(), *M.parent.iterdir()]):
        array(path, noise(*shape, below=2))


def save_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    resave(path, Image.new("RGB", (10, 12), (9, 9, 9)), ".jpg", exif=exif, quality=100)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def write(path: Path, content: bytes | str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def set_metric(sweep: Path, key: str, value: Any) -> None:
    path = first(sweep, "metrics.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def pages(path: Path, *images: Image.Image) -> Path:
    """Write a TIFF whose first page is of the usual size."""
    return resave(path, images[0].resize((10, 12)), ".tif", save_all=True, append_images=list(images))


def one_pixel() -> None:
    every(X, np.array([[[1, 2, 3]]], np.uint8))
    every(M, np.array([[1]], np.uint8))


def move_x(path: Path) -> None:
    inner = path.parent / "more"
    inner.mkdir()
    path.rename(inner / path.name)


def remove_abc() -> None:
    for folder in ("images", "masks"):
        for stem in "abc":
            (DATA / folder / f"{stem}.png").unlink()


def archive() -> None:
    with zipfile.ZipFile(CHECKPOINT, "w") as file:
        file.writestr("../../climbed", "x")


def no_damage(sweep: Path) -> None:
    """Do not damage the sweep: the options are invalid."""


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write(folder / "notes.txt", "nothing here")


def full(value: float, dtype: str = "uint8", *channels: int) -> np.ndarray:
    """Return an image of one value."""
    return np.full((12, 10, *channels), value, dtype)


GREY = functools.partial(Image.new, "L", (10, 12))
RGB = functools.partial(Image.new, "RGB", (10, 12))
ONE_COLOR, GREY16 = (7, 8, 9), full(1000, "uint16")
NINE = {0: "background", 1: "cell", 9: "ignore"}
FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
VAL_LIST = {"train": 1, "val": "val.txt"}
CROP = "_target_: albumentations.RandomCrop, height: 64, width: 64"
TWO = noise(12, 10, below=2)
NONE_READ = "cannot be read as an image"

INPUTS: dict[str, list[Input]] = {
    "Image files": [
        in_data("a PNG cut off in the middle", lambda: cut(X, 0.5), rf"images/x\.png: {NONE_READ}"),
        in_data("a JPEG cut off", lambda: cut(resave(X, RGB(), ".jpg"), 0.6), rf"x\.jpg: {NONE_READ}"),
        in_data("a file of no bytes", lambda: write(X, b""), rf"x\.png: {NONE_READ} \(the file is empty\)"),
        in_data("a text called .png", lambda: write(X, "hello"), rf"x\.png: {NONE_READ} \(it holds no image"),
        in_data("a PDF called .png", lambda: RGB().save(X, "PDF"), rf"x\.png: {NONE_READ} \(it holds no image"),
        in_data("an array called .png", lambda: write(X, bad_npy("(2, 5)")), rf"x\.png: {NONE_READ}"),
        in_data("a GIF called .png is read", lambda: RGB((0, 0, 255)).save(X, "GIF"), "uint8, .* 0, 0, 25[45]", 0),
        in_data("a PNG called .npy", lambda: X.rename(X.with_suffix(".npy")), "x.npy: cannot be read as an array"),
        in_data("a PNG called .nii", lambda: X.rename(X.with_suffix(".nii")), "x.nii: cannot be read as NIfTI"),
        in_data(
            "a JPEG 2000, which is not read",
            lambda: X.rename(X.with_suffix(".jp2")),
            r"x\.png: a mask without an image .*\.bmp, ",
        ),
        in_data(
            "4 000 000 000 000 000 000 pixels, by its header", lambda: write(X, bad_png(2**31 - 1, 2**31 - 1)), "bomb"
        ),
        in_data(
            "225 000 000 pixels",
            lambda: write(X, bad_png(15000, 15000)),
            r"more than [\d,]+ pixels.*or save it as TIFF",
        ),
        in_data("no columns", lambda: write(X, bad_png(0, 12)), rf"x\.png: {NONE_READ}"),
        in_data("images of one pixel", one_pixel, "1 x 1 x 3 of uint8, the first 1, 2, 3; labels: 0 of back", 0),
        in_data("CMYK", lambda: resave(X, Image.new("CMYK", (10, 12), (255, 0, 0, 0)), ".tif"), " 0, 255, 255", 0),
        in_data("a palette", lambda: resave(X, RGB(ONE_COLOR).quantize(2), transparency=0), "first 7, 8, 9", 0),
        in_data("animated", lambda: resave(X, RGB(), save_all=True, append_images=[RGB(ONE_COLOR)]), "of 2 frames"),
        in_data(
            "16-bit colour", lambda: cv2.imwrite(str(X), full(40000, "uint16", 3)), "uint16, .* 40000, 40000, 40000", 0
        ),
        in_data("16-bit grey throughout", lambda: every(X, GREY16), "uint16, the first 1000", 0),
        in_data("16-bit grey among RGB", lambda: swap(X, full(9, "uint16")), "1 channels, but .* has 3"),
        in_data(
            "grey to validate on", lambda: [swap(X.with_stem(s), noise(12, 10)) for s in "cd"], "c.png: 1 .* has 3"
        ),
        in_data("16-bit grey as RGB", lambda: swap(X, GREY16), r"x\.png: .* of uint16, .*mode=RGB does", mode="RGB"),
        in_data("transparency in one image alone", lambda: resave(X, Image.new("RGBA", (10, 12))), "4 channels, but"),
        in_data("turned by EXIF: read as it is, check_data warns", lambda: save_rotated(X), "12 x 10 x 3", 0),
        in_data("a TIFF of two pages", lambda: pages(X, RGB()), r"x\.tif: .* 2 x 12 x 10 x 3, .*pages=channels"),
        in_data("pages of different sizes", lambda: pages(X, Image.new("RGB", (3, 3))), "2 pages of different sizes"),
        in_data("a TIFF of NaN", lambda: swap(X, full(np.nan, "float32"), ".tif"), "x.tif: 1 channels"),
        in_data("an array with an infinite value", lambda: array(X, full(np.inf, "float64", 3)), "x.npy: contains inf"),
        in_data("values of 1e300", lambda: array(X, full(1e300, "float64", 3)), "beyond those of float32.*rescale"),
        in_data("complex numbers", lambda: array(X, np.ones((12, 10, 3), complex)), "complex128, expected .*real"),
        in_data("an array of text", lambda: array(X, np.array(["a", "b"])), "an array of <U1, expected .*real numbers"),
        in_data("an array of Python objects", lambda: array(X, np.array([{}], object)), "x.npy: cannot .*numpy.save"),
        in_data("a pickle called .npy", lambda: write_npy(pickle.dumps([1])), "x.npy: cannot be read as an array"),
        in_data("an array cut off", lambda: cut(array(X, noise(12, 10, 3)), 0.6), "x.npy: cannot be read .*numpy.save"),
        in_data("an array of 8 EB", lambda: write_npy(bad_npy("(1000000000, 1000000000)")), "x.npy: cannot be read"),
        in_data("an array of -1 rows", lambda: write_npy(bad_npy("(-1, 3)")), "x.npy: cannot be read as an array"),
        in_data("an array without axes", lambda: array(X, np.float32(3)), "x.npy: .* at least one axis"),
        in_data("an array of no rows", lambda: array(X, np.zeros((0, 10, 3))), "0 x 10 x 3, .*none of them empty"),
        in_data("an array with channels first is read", lambda: array(X, noise(3, 12, 10)), "12 x 10 x 3 of uint8", 0),
        in_data("an axis too many", lambda: array(X, noise(2, 12, 10, 3)), "2 x 12 x 10 x 3, but its mask"),
        in_data("a folder called x.png", lambda: (X.unlink(), X.mkdir()), "masks/x.png: a mask without an image"),
        in_data("a link to nowhere", lambda: (X.unlink(), X.symlink_to("gone")), "x.png: a broken link"),
        in_data("a link to itself", lambda: (X.unlink(), X.symlink_to("x.png")), rf"x\.png: {NONE_READ}"),
        in_data("a failing disk", lambda: (X.unlink(), X.symlink_to("/proc/self/mem")), rf"x\.png: {NONE_READ}"),
    ],
    "Masks": [
        in_data("of no bytes", lambda: write(M, b""), rf"masks/x\.png: {NONE_READ} \(the file is empty\)"),
        in_data("of 0 and 255", lambda: swap(M, TWO * np.uint8(255)), r"label 255 .*add 'data\.source\.values=\{0: b"),
        in_data(
            "a JPEG, which blurs",
            lambda: resave(M, Image.fromarray(TWO * np.uint8(255)), ".jpg"),
            "x.jpg: label",
        ),
        in_data("a label too many", lambda: swap(M, full(7, "uint8")), r"label 7 .*\(expected 0, 1\)"),
        in_data("label 256", lambda: swap(M, full(256, "uint16")), "256 is"),
        in_data("label -1", lambda: array(M, full(-1, "int64")), r"masks/x\.npy: label -1 is outside"),
        in_data("label 0.5", lambda: swap(M, full(0.5, "float32"), ".tif"), "label 0.5 is outside"),
        in_data("label NaN", lambda: swap(M, full(np.nan, "float32"), ".tif"), "label nan is outside"),
        in_data("floats that are whole", lambda: swap(M, TWO.astype("float32"), ".tif"), "54 of background, 66", 0),
        in_data("of 16 bits, with labels in range", lambda: swap(M, TWO.astype("uint16")), "54 of background, 66", 0),
        in_data("true and false", lambda: array(M, TWO > 0), "54 of background, 66 of cell", 0),
        in_data("one bit a pixel", lambda: resave(M, Image.new("1", (10, 12), 1)), "0 of background, 120 of cell", 0),
        in_data(
            "a palette: its indices are taken",
            lambda: resave(M, Image.fromarray(TWO).convert("P")),
            "54 of b",
            0,
        ),
        in_data("grey saved as RGB", lambda: swap(M, np.repeat(TWO[..., None], 3, -1)), "54 of background, 66", 0),
        in_data("colours nobody named", lambda: swap(M, noise(12, 10, 3, below=2)), "a colour mask of 8 .*0 0 1: NAME"),
        in_data("CMYK", lambda: resave(M, Image.new("CMYK", (10, 12), (0, 0, 0, 255)), ".tif"), "0 of b|120 of b", 0),
        in_data("another height than the image", lambda: swap(M, noise(9, 10, below=2)), "9 x 10, the image 12 x 10"),
        in_data("turned against the image", lambda: swap(M, noise(10, 12, below=2)), "10 x 12, the image 12 x 10"),
        in_data("of two pages", lambda: pages(M, GREY(), GREY()), "x.png: .* 12 x 10 x 3, but its mask has 3 axes"),
        in_data("one channel a class", lambda: array(M, noise(12, 10, 2, below=2)), "but its mask has 3 axes"),
        in_data("a volume", lambda: [array(p, noise(3, 12, 10, below=2)) for p in (X, M)], "2 spatial.*3 x 12 x 10"),
        in_data("of four axes", lambda: array(M, noise(2, 2, 12, 10)), "a mask of 2 x 2 x 12 x 10, expected one"),
        in_data("ignored in one mask", lambda: swap(M, full(9)), "120 ignored", 0, values=NINE),
        in_data("ignored in all", lambda: every(M, full(9)), "no pixel is label", values=NINE),
        in_data("a class", lambda: every(M, TWO * 0), "120 of back", 0),
    ],
    "Folders": [
        in_data("no such folder", lambda: DATA.rename("other"), "data: no such folder"),
        in_data("a file for a folder", lambda: (shutil.rmtree(DATA), write(DATA, "x")), "data: no such folder"),
        in_data("no images/", lambda: (DATA / "images").rename(DATA / "pictures"), "add .*pictures/{id}"),
        in_data("no masks/", lambda: (DATA / "masks").rename(DATA / "labels"), "add .*labels/{id}"),
        in_data("an empty images/", lambda: empty(X.parent), r"no images match .*expected \.bmp, "),
        in_data("an image without a mask", M.unlink, r"images/x\.png: no mask data/masks/x\.\*; add it or remove"),
        in_data("a mask without an image", X.unlink, r"masks/x\.png: a mask without an image in data/images; add"),
        in_data("two images of one stem", lambda: save(X.with_suffix(".jpg"), noise(12, 10, 3)), "two files with one"),
        in_data("two masks of one stem", lambda: save(M.with_suffix(".bmp"), TWO), "x.png and x.bmp: two files"),
        in_data("an image in a folder of its own", lambda: move_x(X), "masks/x.png: a mask without an image"),
        in_data("what a Mac leaves behind", lambda: write(X.with_name("._x.png"), "mac"), "58 of background", 0),
        in_data("a name that is not UTF-8", lambda: rename_x(os.fsdecode(b"x\xff.png")), "2 images train", 0),
        in_data("a name of two lines", two_lines, rf"images/x y\.png: {NONE_READ}", splits=VAL_LIST),
        in_data("the same image to train and to validate on", lambda: shutil.copy(X, X.with_name("c.png")), "58 of", 0),
        in_data("a list", list, "gone.txt: cannot be read", splits={"train": 1, "val": "gone.txt"}),
        in_data("a list", lambda: write(DATA / "val.txt", "c\nd".encode("utf-16")), "val.txt: .*not UTF-8 text"),
        in_data("a list with a BOM", lambda: write(DATA / "val.txt", b"\xef\xbb\xbfc\r\nd\r\n"), "58 of ba", 0),
        in_data("a misspelt name in a list", lambda: write(DATA / "val.txt", "cc\nd"), "no image cc .*did you mean c"),
        in_data("an empty list", lambda: write(DATA / "val.txt", ""), "no images for val; training needs train"),
        in_data("a list", lambda: write(DATA / "val.txt", "c\nc"), "c.png: listed for val and ag"),
        in_data("one list for both", list, "listed for train and again", splits={"train": "val.txt", "val": "val.txt"}),
        in_data("fewer images than splits", remove_abc, "cannot be divided into", splits=FRACTIONS),
        in_data("a group that no name has", list, r"image a does not match data\.source\.group", group="(patient)"),
    ],
    "Class lists and colours": [
        in_data("one class and ignore", list, "found 1: cell", classes=None, values={0: "ignore", 1: "cell"}),
        in_data("no classes", list, "data.source.classes: expected a list of at least two names", classes=None),
        in_data("one class", list, "at least two names", classes=["cell"]),
        in_data("a text for a list", list, "at least two names", classes="cell"),
        in_data("a number for a list", list, "at least two names", classes=3),
        in_data("two classes of one name", list, "different names", classes=["cell", "cell"]),
        in_data("a class called ignore", list, "none of them ignore", classes=["cell", "ignore"]),
        in_data("a class without a name", list, "none of them ignore or empty", classes=["", "cell"]),
        in_data("256 classes", list, "up to 255 .*found 256: 0, 1, 2", classes=[str(label) for label in range(256)]),
        in_data("values for an unknown class", list, "unknown class 'sell'; did you mean cell", values={0: "sell"}),
        in_data("a value that is no number", list, "expected an integer or \"r g b\", found 'a'", values={"a": "cell"}),
        in_data("a list for the values", list, "data.source.values: expected a class, or ignore", values=["cell"]),
        in_data("no values", list, "data.source.values: expected a class, or ignore", values={}),
        in_data("a colour too few", list, "data.source.colors: expected 2", colors=[[0, 0, 0]]),
        in_data("a colour by name", list, "each 0 to 255", colors=["red", "sky"]),
        in_data("a colour of 300", list, "each 0 to 255", colors=[[0, 0, 300], [0, 0, 0]]),
        in_data("an unknown mode", list, "data.source.mode: expected null or one of L, RGB", mode="XYZ"),
        in_data("a pattern without {id}", list, "data.source.mask: expected a pattern with {id}", mask="mask"),
        in_data("a broken expression", list, "data.source.group: .* no regular expression", group="("),
        in_data("an expression without a group", list, "data.source.group: .*parentheses", group="a.*"),
        in_data("a misspelt split", list, "data.source.splits: expected train, val and test", splits={"trian": 1}),
        in_data("a share below 0", list, "data.source.splits.train: .*found -1", splits={"train": -1, "val": 1}),
    ],
    "Configuration": [
        in_config("model.down=stride", "model.down: unknown operator 'stride'; did you mean strided"),
        in_config("model.down=null", "model.down: expected a name or {name: "),
        in_config("model.down=[max]", r"model.down: expected one value or 2 \(one per stage"),
        in_config("model.down={name: max, kernel_size: 1}", "at least the stride .2., found 1: .*skips pixels"),
        in_config("model.down={name: strided_blur, kernel_size: 2}", "kernel_size must be a positive odd integer"),
        in_config("model.down={name: gem, p: 0}", "p must be a number of at least 1, found 0"),
        in_config("model.up={name: carafe, compressed: 0}", "compressed must be an integer of at least 1, found 0"),
        in_config("model.up={name: sapa, embedding: -1}", "embedding must be an integer of at least 1, found -1"),
        in_config("model.context={name: spp, bins: [0]}", "bins must be positive integers"),
        in_config("model.width=0", "model.width: expected an integer of at least 1, found 0"),
        in_config("model.width=[4,8]", r"model.width: expected a number or 3 numbers \(depth 2 has 3 levels\)"),
        in_config("model.depth=two", "model.depth: expected an integer of at least 0, found 'two'"),
        in_config("model.depth=9", "input of 32 x 32 is too small for depth 9: .* smaller model.depth"),
        in_config("model.stride=64", "too small for depth 2: the smallest that works is 4096 x 4096"),
        in_config("model.stride=[[2,2,2],2]", "model.stride: a stage has 2 axes"),
        in_config("model.stride=x", "model.stride: expected an integer of at least 1, found 'x'"),
        in_config("model.dropout=1", "model.dropout: expected a probability"),
        in_config("model.spatial_dims=3", "data=folder has 2 spatial axes; leave the key out"),
        in_config("loss.class_weights=[1,2,3]", "loss.class_weights: .* 2 numbers of at least 0"),
        in_config("loss.logit_adjustment=maybe", "expected true or false, found 'maybe'"),
        in_config("optim.lr=-1", "optim.lr: expected a number above 0, found -1"),
        in_config("optim.lr=nan", "optim.lr: expected a number above 0, found nan"),
        in_config("optim.betas=[0.9,1.5]", "optim.betas: expected two numbers"),
        in_config("optim.warmup=2", "optim.warmup: expected a fraction"),
        in_config("seed=-1", "seed: expected an integer of 0 to 4294967295, found -1"),
        in_config("threads=100000", "threads: expected null or an integer of 1 to 1024"),
        in_config("ema=2", "ema: expected null or a decay of at least 0 and below 1"),
        in_config("num_logged_images=-1", "num_logged_images: expected an integer of at least 0, found -1"),
        in_config("data.batch_size=99", "3 training images are fewer than data.batch_size=99"),
        in_config("data.cache_gb=x", "data.cache_gb: expected a number of at least 0"),
        in_config("data.eval_tile=[32]", "data.eval_tile: expected null or 2 integers"),
        in_config("data.eval_overlap=1", "data.eval_overlap: expected a .* below 1"),
        in_config("data.crop.picture=0", "data.crop.picture: expected an integer of at least 1"),
        in_config("data.train_transforms=[{_target_: albumentations.HorizontalFlip, chance: 1}]", "=folder: .*chance"),
        in_config("data.train_transforms=[{_target_: albumentations.RandomCrp}]", "data=folder: .*RandomCrp"),
        in_config(f"data.train_transforms=[{{{CROP}}}]", "a.png: data.train_transforms fail"),
        in_config("data.train_transforms=[3]", "3 is no albumentations transform"),
        in_config("data.source._target_=nowhere.Folder", "data=folder: .*nowhere"),
        in_config("data.root=null", "data.root: expected a folder, found None"),
        in_config("optim=null", "optim: expected a mapping, found None"),
        in_config("trainer.max_epochs=x", r"trainer.max_epochs: expected null or -1 .*, found 'x'"),
        in_config("trainer.accumulate_grad_batches=0", "accumulate_grad_batches: expected an integer of at least 1"),
        in_config("trainer.log_every_n_steps=0", "trainer.log_every_n_steps: expected an integer of at least 1"),
        in_config("trainer.limit_val_batches=0", "trainer.limit_val_batches: expected null or a number above 0"),
        in_config("trainer.precision=bf17", "trainer.precision: expected one of auto, .*, found 'bf17'"),
        in_config(
            "trainer.accelerator=tpu9",
            "trainer.accelerator: unknown 'tpu9'; did you mean tpu",
        ),
        in_config("trainer.max_time=x", "trainer: Lightning refuses the settings: .*DD:HH:MM:SS"),
        in_config("ckpt_path=gone.ckpt", "ckpt_path=gone.ckpt: no such file; expected a checkpoint"),
        in_config(
            "model.up=bicubic", "model.up=bicubic: supports 2 spatial axes only, found 3", lambda: arrays(6, 12, 10)
        ),
        in_config("data.eval_tile=[32,32]", "expected null or 1 integers", lambda: arrays(64)),
        in_config("model.stride=[[2,2],2]", "model.stride: a stage has 1 axes", lambda: arrays(64)),
    ],
    "Command lines": [
        typed("a misspelt key", "train.py", "model.depht=3", gets="model.depht: no such key; did you mean model.depth"),
        typed("a misspelt data set", "train.py", "data=camvit", gets="data=camvit: no such choice; did you mean camvi"),
        typed("a key without a value", "train.py", "model.down", gets="'model.down' is not a KEY=VALUE", status=2),
        typed("a bracket that stays open", "train.py", "model.down=[max", gets="is not a KEY=VALUE", status=2),
        typed("an input of no size", "scripts/describe.py", "input=3x4x", gets="input=3x4x: expected positive numbers"),
        typed("an input of four axes", "scripts/describe.py", "input=3x9x9x9x9", gets="expected channels and 1 to 3"),
        typed("no folder of runs", "scripts/curve.py", gets="folder: is required; see python scripts/curve.py --help"),
        typed("a folder without runs", "scripts/curve.py", ".", gets=".: no event files in it; expected the f"),
        typed("no folder", "scripts/report.py", gets="folder: is required; see python scripts/report.py --help"),
        typed(
            "a folder of no run", "scripts/maintain/results.py", "add", ".", "kept", gets="metrics.json: no such file"
        ),
    ],
    "Checkpoints": [
        in_checkpoint("no such file", CHECKPOINT.unlink, "best.ckpt: .*; expected a checkpoint"),
        in_checkpoint("a folder", lambda: (CHECKPOINT.unlink(), CHECKPOINT.mkdir()), "best.ckpt: .*; expected a ch"),
        in_checkpoint("cut off", lambda: cut(CHECKPOINT, 0.5), "best.ckpt: damaged"),
        in_checkpoint("of no bytes", lambda: write(CHECKPOINT, b""), "best.ckpt: damaged"),
        in_checkpoint("a text", lambda: write(CHECKPOINT, "hello"), "best.ckpt: damaged, not a checkpoint"),
        in_checkpoint("a picture", lambda: RGB().save(CHECKPOINT, "PNG"), "best.ckpt: damaged, not a checkpoint"),
        in_checkpoint("another archive", archive, "best.ckpt: damaged, not a checkpoint"),
        in_checkpoint("code in it", lambda: torch.save({"description": Evil()}, CHECKPOINT), "could run code .*system"),
        in_checkpoint("a bare pickle with code", lambda: write(CHECKPOINT, pickle.dumps(Evil())), "could run code"),
        in_checkpoint("a whole module", lambda: torch.save(torch.nn.Linear(1, 1), CHECKPOINT), "could run code"),
        in_checkpoint("a list", lambda: torch.save([1], CHECKPOINT), "not a checkpoint of this project"),
        in_checkpoint("of another project", lambda: torch.save({"state_dict": {}}, CHECKPOINT), "not a checkpoint"),
        in_checkpoint("an empty description", lambda: save_net({}), r"do not fit its own description \(no 'model'\)"),
        in_checkpoint("a description that is a list", lambda: save_net([1]), "do not fit its own description"),
        in_checkpoint("an unknown operator", with_keys(model_down="strid"), "did you mean strided"),
        in_checkpoint("an unknown argument", with_keys(model_wings=2), "unexpected keyword argument 'wings'"),
        in_checkpoint("99 levels", with_keys(model_depth=99), "more than 65,536"),
        in_checkpoint("a billion channels", with_keys(model_in_channels=10**9), r"\[4, 2, 3, 3\] and not \[4, 10000"),
        in_checkpoint("a class too few", with_keys(classes=["sky", "sea"]), "2 classes, 3 colours"),
        in_checkpoint("no mean", with_keys(mean=[]), "do not fit its own description"),
        in_checkpoint("a weight that is missing", weight("net.head.bias", None), "net.head.bias is missing"),
        in_checkpoint("a weight too many", weight("net.tail", torch.ones(1)), "net.tail is unexpected"),
        in_checkpoint("a weight of another shape", weight("net.head.bias", torch.ones(9)), r"is \[9\] and not \[3\]"),
        in_checkpoint("a complex weight", weight("net.head.bias", torch.ones(3) * 1j), "is torch.complex64 and not"),
        in_checkpoint("a weight that is a text", weight("net.head.bias", "x"), "do not fit its own description"),
        in_checkpoint("NaN weights", weight("net.head.bias", torch.full((3,), torch.nan)), "net.head.bias holds NaN"),
    ],
    "Reports of sweeps": [
        in_report("no such folder", shutil.rmtree, "sweep: no such folder; expected the folder of a sweep"),
        in_report("a folder of other things", empty, "sweep: no runs in it; expected"),
        in_report("the folder of one run", lambda s: write(s / "metrics.json", "{}"), "is the folder of one run"),
        in_report("a plan that is a list", lambda s: write(s / "sweep.json", "[1]"), "sweep.json: .*repair it"),
        in_report("a plan cut off", lambda s: write(s / "sweep.json", '{"jobs": '), "sweep.json: cannot be read"),
        in_report("scores cut off", lambda s: write(first(s, "metrics.json"), '{"te'), "unreadable: metrics.json", 0),
        in_report("scores", lambda s: write(first(s, "metrics.json"), "[1]"), "is unreadable: metrics", 0),
        in_report("a status of no text", lambda s: write(first(s, "status.json"), b"\xff"), "is unreadable: status", 0),
        in_report("a status nested too deep", lambda s: write(first(s, "status.json"), "[" * 10**5), "unreadable", 0),
        in_report("a config", lambda s: write(first(s, "config.yaml"), "a: ["), "is unreadable: config", 0),
        in_report("a score that is NaN", lambda s: set_metric(s, "test/miou", float("nan")), "NaN|nan|diverged", 0),
        in_report("an unknown metric", no_damage, "no run has test/mio in .*; did you mean miou", metric="mio"),
        in_report("a list of earlier reports", lambda s: write(s / "reports.json", "[1]"), "reports.json: cannot be"),
        in_report("an early report of no seeds", reports([{"seeds": 6}]), "reports.json: cannot be read .*'planned'"),
        in_report("reports that are a number", reports(3), "reports.json: cannot be read"),
        in_report(
            "questions that are a list", lambda s: write(s / "sweep.json", '{"questions": [1]}'), "sweep.json: .*"
        ),
        in_report("a margin that is a text", no_damage, "margin=x: expected a positive number", margin="x"),
        in_report("a margin of zero", no_damage, "margin=0: expected a positive number", margin=0),
        in_report("a key that was not swept", no_damage, "cannot tune optim.lr.*it varied model.down", tune="optim.lr"),
    ],
}
