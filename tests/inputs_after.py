"""Bad input of every kind after training: what prediction, evaluation, export and the page get. Goes on from inputs.py.

To add one, add a line to ``AFTER`` and run ``python scripts/bad_inputs.py``.
"""

import functools
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import tifffile
import torch
from folders import CLASSES, folder_of, noise, save, swap
from inputs import (
    CHECKPOINT,
    DATA,
    INPUTS,
    RGB,
    Evil,
    Input,
    M,
    Outcome,
    X,
    composed,
    cut,
    npy,
    png,
    said,
    training_data,
    typed,
    write,
)
from networks import checkpoint
from omegaconf import OmegaConf
from PIL import Image

from unet import load
from unet.data.source import Array
from unet.demo.pictures import picture

PHOTO = Path("photos") / "x.png"
"""The image that is predicted, and its array where nothing is wrong with it."""
PIXELS = noise(24, 32, 3)
RUN, LABELS, SCORES, NOTES = Path("run"), Path("labels"), Path("scores"), Path("photos") / "notes.txt"

# How an input is given


@functools.cache
def trained(spatial_dims: int = 2, channels: int = 3, dtype: str | None = "uint8", first: str = "sky") -> bytes:
    """A checkpoint's bytes; ``first`` is the name of its first class."""
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder), spatial_dims, channels, dtype=dtype, classes=[first, "sea", "land"])
        return path.read_bytes()


def words(options: tuple[str, ...], *usual: str) -> list[str]:
    """A command's arguments: the usual ones, but those that are given otherwise, and the others."""
    keys = [option.partition("=")[0] for option in options]
    return [*(word for word in usual if word.partition("=")[0] not in keys), *options]


def predicted(
    wrong: str,
    make: Callable[[], Any],
    *options: str,
    gets: str,
    status: int = 1,
    given: str = "photos",
    net: tuple[int, int] = (2, 3),
    tile: list[int] | None = None,
) -> Input:
    """A prediction of what ``make`` puts into photos/; a right result is compared with that of the array it returns.

    ``net`` is the network's axes and channels.
    """
    made: list[Any] = []

    def prepare() -> None:
        CHECKPOINT.write_bytes(trained(*net))
        PHOTO.parent.mkdir()
        made[:] = [make()]

    tiled = [f"tile={tile}".replace(" ", "")] if tile else []
    usual = words(options, "ckpt=best.ckpt", f"input={given}", "output=labels", *tiled)
    command = typed(wrong, "scripts/predict.py", *usual, gets=gets, status=status, make=prepare)

    def give() -> Outcome:
        found = command.give()
        if found.status:
            return found
        with Image.open(LABELS / "x.png") as file:
            labels = np.asarray(file)
        assert np.array_equal(labels, load(CHECKPOINT).predict(made[0], tile=tile))
        return Outcome(0, f"labels/x.png: {labels.shape[0]} x {labels.shape[1]} labels, those of the array")

    return replace(command, give=give)


def evaluated(wrong: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """An evaluation of a run on two classes in RGB."""

    def make() -> None:
        training_data()
        (RUN / "checkpoints").mkdir(parents=True)
        (RUN / "checkpoints" / "best.ckpt").write_bytes(scored())
        OmegaConf.save(composed(), RUN / "config.yaml", resolve=True)
        spoil()

    usual = words(options, f"ckpt={RUN}/checkpoints/best.ckpt")
    command = typed(wrong, "scripts/evaluate.py", *usual, gets=gets, make=make)

    def give() -> Outcome:
        found = command.give()
        return replace(found, said=found.said.replace(f"{Path.cwd()}/", ""))  # a run's config is named in full

    return replace(command, give=give)


@functools.cache
def scored() -> bytes:
    """A checkpoint's bytes, of a network on two classes in RGB."""
    model = {"in_channels": 3, "num_classes": 2, "width": 4, "depth": 2, "spatial_dims": 2}
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder), model=model, classes=CLASSES, colors=[[0, 0, 0], [0, 255, 0]])
        return path.read_bytes()


def exported(wrong: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """An export of a checkpoint, beside which two images lie in data/."""

    def make() -> None:
        CHECKPOINT.write_bytes(trained())
        folder_of(DATA, list("ax"))
        spoil()

    return typed(wrong, "scripts/export.py", *words(options, "ckpt=best.ckpt"), gets=gets, make=make)


def measured(wrong: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """An export whose cost data/ says; in torch's own format, which needs no other package."""
    usual = words(options, "format=pt2", "variant=bf16", "calibration=data")
    return exported(wrong, *usual, gets=gets, spoil=spoil)


def opened(wrong: str, *options: str, gets: str, make: Callable[[], Any] = list) -> Input:
    """A page that never opens, on a machine that has Gradio as far as the command asks."""

    def prepare() -> None:
        CHECKPOINT.write_bytes(trained())
        make()

    command = typed(wrong, "scripts/demo.py", *options, gets=gets, make=prepare)

    def give() -> Outcome:
        if find_spec("gradio"):
            return command.give()
        sys.modules["gradio"] = ModuleType("gradio")
        sys.modules["gradio"].__spec__ = ModuleSpec("gradio", None)
        try:
            return command.give()
        finally:
            del sys.modules["gradio"]

    return replace(command, give=give)


def uploaded(wrong: str, make: Callable[[], Any], gets: str, suffix: str = ".png") -> Input:
    """A file that the page is given, which takes half a million pixels."""

    def give() -> Outcome:
        PHOTO.parent.mkdir()
        make()
        return said(lambda: str(picture(PHOTO.with_suffix(suffix), 0.5).size))

    return Input(wrong, "the page with max_megapixels=0.5", give, gets)


def without_gpu(entry: Input) -> Input:
    def give() -> Outcome:
        with (
            mock.patch("torch.cuda.is_available", return_value=False),
            mock.patch("torch.backends.mps.is_available", return_value=False),
        ):
            return entry.give()

    return replace(entry, give=give)


# How it is made


def photo(pixels: Any = PIXELS, suffix: str = ".png", **options: Any) -> Array:
    """A picture or an array as photos/x; returns what it shows."""
    path = PHOTO.with_suffix(suffix)
    if isinstance(pixels, Image.Image):
        pixels.save(path, **options)
        return np.asarray(pixels.convert("RGB"))
    if suffix == ".npy":
        np.save(path, pixels, allow_pickle=True)
    elif suffix == ".tif":
        tifffile.imwrite(path, pixels, **options)
    else:
        save(path, pixels)
    return pixels


def halved(pixels: Any = PIXELS, suffix: str = ".png", **options: Any) -> None:
    """The first half of the file."""
    photo(pixels, suffix, **options)
    cut(PHOTO.with_suffix(suffix), 0.5)


def stored(pixels: Array) -> Array:
    """``PIXELS`` in another form, as photos/x.npy."""
    photo(pixels, ".npy")
    return PIXELS


def others(path: Path) -> None:
    """A file of that name that predict did not write."""
    photo()
    save(path, noise(3, 3))


def without_trainer() -> None:
    path = RUN / "config.yaml"
    write(path, path.read_text().partition("\ntrainer:")[0])


def weights_of_nan() -> None:
    path = RUN / "checkpoints" / "best.ckpt"
    found = torch.load(path, weights_only=True)
    found["state_dict"]["net.head.bias"].fill_(torch.nan)
    torch.save(found, path)


def small() -> None:
    swap(X, noise(3, 3, 3))
    swap(M, noise(3, 3, below=2))


def configured(text: str | bytes) -> Callable[[], None]:
    return lambda: write(RUN / "config.yaml", text)


GREY16 = noise(24, 32, below=65536, dtype="uint16")
STRIPS: dict[str, Any] = {"suffix": ".tif", "photometric": "rgb", "compression": "zlib", "rowsperstrip": 4}
PAGES: dict[str, Any] = {"suffix": ".tif", "photometric": "minisblack"}
HUGE = png(2**31 - 1, 2**31 - 1)
NAN = np.full((24, 32, 3), np.nan, "float32")
NO_IMAGES = r"no images here; expected a folder with images \(\.bmp"
NONE_READ = "cannot be read as an image"

# The table

AFTER: dict[str, list[Input]] = {
    "Prediction": [
        typed("no input", "scripts/predict.py", "ckpt=best.ckpt", "output=labels", gets="input: is required; see"),
        predicted("a misspelt key", photo, "overlp=0.5", gets="overlp: no such key; did you mean overlap"),
        predicted("no such input", list, given="gone", gets="input=gone: no images here; expected a file, a folder"),
        predicted("a pattern that matches nothing", photo, given="photos/*.tif", gets=r"\*\.tif: no images here; exp"),
        predicted("an empty folder", list, gets=NO_IMAGES),
        predicted("a text", lambda: write(NOTES, "x"), given=str(NOTES), gets=r"notes\.txt: no format .*; convert it"),
        predicted(
            "an animated GIF",
            lambda: photo(RGB(), ".gif", save_all=True, append_images=[RGB((9, 9, 9))]),
            given="photos/x.gif",
            gets=r"x\.gif: no format that is read \(\.bmp, .*; convert it",
        ),
        predicted("a PNG cut off", halved, gets=rf"x\.png: {NONE_READ} .*truncated"),
        predicted(
            "a TIFF cut off", lambda: halved(suffix=".tif", photometric="rgb"), gets=r"x\.tif: cut short; save it anew"
        ),
        predicted(
            "a compressed TIFF cut off, found as its rows are read",
            lambda: halved(**STRIPS),
            gets=r"x\.tif: rows 0 to 24 cannot be read .*; replace the file",
        ),
        predicted("a file of no bytes", lambda: write(PHOTO, b""), gets=rf"x\.png: {NONE_READ} \(the file is empty"),
        predicted("a text called .png", lambda: write(PHOTO, "hello"), gets=rf"x\.png: {NONE_READ} \(its content"),
        predicted(
            "a TIFF of NaN",
            lambda: photo(NAN, ".tif", photometric="rgb"),
            gets=r"x\.tif: the image holds NaN .*; replace them",
        ),
        predicted("values of 1e300", lambda: photo(PIXELS * 1e300, ".npy"), gets=r"x\.npy: values beyond .*; rescale"),
        predicted("five channels", lambda: photo(noise(24, 32, 5), ".npy"), gets="5 channels, .* trained on 3"),
        predicted("colour for a network of grey", photo, net=(2, 1), gets="3 channels, .* on 1; convert it to grey"),
        predicted(
            "grey with alpha for a network of colour: the grey is repeated, alpha dropped",
            lambda: photo(Image.fromarray(noise(24, 32, 2), "LA")),
            gets="24 x 32 labels",
            status=0,
        ),
        predicted(
            "CMYK: read as RGB",
            lambda: photo(Image.fromarray(noise(24, 32, 4), "CMYK"), ".tif"),
            gets="24 x 32 labels",
            status=0,
        ),
        predicted("a TIFF of three pages", lambda: photo(noise(3, 24, 32), **PAGES), gets="takes images of 2 axes"),
        predicted("4 000 000 000 000 000 000 pixels, by its header", lambda: write(PHOTO, HUGE), gets="too large to"),
        predicted(
            "an array of -1 rows",
            lambda: write(PHOTO.with_suffix(".npy"), npy("(-1, 3)")),
            gets=r"x\.npy: cannot be read as an array of numbers",
        ),
        predicted("one pixel", lambda: photo(PIXELS[:1, :1]), gets="1 x 1 labels", status=0),
        predicted("16-bit grey: read with all 16", lambda: photo(GREY16), gets="24 x 32 labels", status=0),
        predicted("true and false", lambda: photo(PIXELS[..., 0] > 99, ".npy"), gets="24 x 32 labels", status=0),
        predicted("an array laid out by columns", lambda: stored(np.asfortranarray(PIXELS)), gets="24 x 32", status=0),
        predicted("big-endian numbers", lambda: stored(PIXELS.astype(">u2")), gets="24 x 32", status=0),
        predicted("objects with code in them", lambda: photo(np.array([Evil()]), ".npy"), gets="Object arrays cannot"),
        predicted("complex numbers", lambda: photo(PIXELS * 1j, ".npy"), gets="complex128, expected one of real"),
        predicted(
            "five axes", lambda: photo(noise(2, 2, 24, 32, 3), ".npy"), gets="of 2 x 2 x 24 x 32 x 3 with .* 2 axes"
        ),
        predicted("output is a file", lambda: (photo(), write(LABELS, "x")), gets="output=labels: cannot be made"),
        predicted("output is input", photo, "output=photos", gets=r"output=photos: holds x\.png, an input; choose"),
        predicted(
            "labels/x.png is somebody's: it is left alone", lambda: others(LABELS / "x.png"), gets="; overwrite=true re"
        ),
        predicted(
            "two images of one stem", lambda: (photo(), photo(RGB(), ".jpg")), gets=r"x\.png: .* as those of .*x\.jpg"
        ),
        predicted("a tile of no rows", photo, "tile=[0,32]", gets=r"tile: expected null or 2 .*, found \[0, 32\]"),
        predicted("a tile of one axis", photo, "tile=[32]", gets=r"tile: expected null or 2 integers .*, found \[32\]"),
        predicted("a tile below the stride: made a multiple", photo, tile=[1, 1], gets="24 x 32 labels", status=0),
        predicted("tiles that overlap wholly", photo, "overlap=1.0", gets="overlap: expected a share .*, found 1.0"),
        predicted("no tile at a time", photo, "batch=0", gets="batch: expected an integer of at least 1, found 0"),
        predicted("half precision", photo, "precision=half", gets="precision: expected one of auto, .*, found 'half'"),
        without_gpu(predicted("no such device", photo, "device=cuda", gets="device=cuda: not here; .* auto, cpu$")),
        without_gpu(predicted("no GPU at all", photo, "device=gpu", gets="device=gpu: not here; .* auto, cpu$")),
        predicted("no threads", photo, "threads=0", gets="threads: expected null or an integer of 1 to 1024, found 0"),
        predicted("threads that are true", photo, "threads=true", gets="threads: .* of 1 to 1024, found True"),
        predicted("a yes that is no true", photo, "tta=yes", gets="tta: expected true or false, found 'yes'"),
        predicted("a picture for a checkpoint", photo, "ckpt=photos/x.png", gets="x.png: damaged, no checkpoint, or"),
    ],
    "Evaluation": [
        typed("no checkpoint", "scripts/evaluate.py", gets="ckpt: is required; see python scripts/evaluate.py"),
        evaluated("a misspelt key", "splt=val", gets="splt: no such key; did you mean split"),
        evaluated("a misspelt key of the data", "data.rot=other", gets="data.rot: no such key .*; did you mean dat"),
        evaluated("a split that is none", "split=nonsense", gets=r"split=nonsense: the data has none \(valid: train, "),
        evaluated("a split that is a number", "split=3", gets=r"split=3: the data has none \(valid: train, val\)"),
        evaluated(
            "no config of the run", gets="run/config.yaml: no such .* data=NAME", spoil=(RUN / "config.yaml").unlink
        ),
        evaluated(
            "a config of no bytes", gets="run/config.yaml: holds no seed; expected the whole", spoil=configured("")
        ),
        evaluated("a config cut off", gets="config.yaml: holds no trainer.precision; expected", spoil=without_trainer),
        evaluated("a config that is no text", gets="run/config.yaml: cannot be read", spoil=configured(b"\xff\xfe\0")),
        evaluated("NaN weights", gets="best.ckpt: net.head.bias holds NaN .*; take an earlier", spoil=weights_of_nan),
        evaluated(
            "data of other classes",
            *("data=folder", "data.root=data", "data.source.classes=[sky,sea]"),
            gets="classes sky, sea, but .*best.ckpt was trained for background, cell; they must",
        ),
        evaluated(
            "data of other channels",
            gets="images of 1 channels and 2 axes, but .*best.ckpt was trained on 3",
            spoil=lambda: [swap(path, noise(12, 10)) for path in (DATA / "images").iterdir()],
        ),
        evaluated("half precision", "trainer.precision=half", gets="trainer: Lightning refuses .* 'half' is invalid"),
        evaluated(
            "output holds scores",
            "output=run",
            gets="metrics.json: is there already; choose",
            spoil=lambda: write(RUN / "metrics.json", "{}"),
        ),
    ],
    "Export": [
        exported("a misspelt key", "fromat=pt2", gets="fromat: no such key; did you mean format"),
        exported("no such format", "format=tflite", gets=r"format: unknown 'tflite' \(valid: onnx, pt2\)"),
        exported("no such variant", "variant=int4", gets="variant: unknown 'int4'; did you mean int8"),
        exported("nothing to calibrate on", "variant=int8", gets="variant=int8: add calibration=FOLDER"),
        exported("a variant of the other format", "variant=bf16", gets="variant=bf16 format=onnx: .*; take format=pt2"),
        exported("output is there", "format=pt2", "output=data", gets="data: already there and not over"),
        exported("an agreement in percent", "format=pt2", "agreement=98", gets="agreement: .*, found 98"),
        exported("another type than the training's", "format=pt2", "dtype=uint16", gets="dtype=uint16: .* on uint8 im"),
        exported(
            "a checkpoint that does not say its images' type",
            "format=pt2",
            gets="the checkpoint does not say .*; add dtype=uint8",
            spoil=lambda: CHECKPOINT.write_bytes(trained(dtype=None)),
        ),
        measured("no such images", "calibration=gone", gets="gone: no such folder; calibration=FOLDER holds"),
        measured(
            "one image",
            gets="calibration=data: 1 images; it needs at least two",
            spoil=lambda: (X.unlink(), M.unlink()),
        ),
        measured(
            "an image of grey", gets=r"x\.png: 12 x 10 x 1 .*expected 3 .*; take", spoil=lambda: swap(X, noise(12, 10))
        ),
        measured("an image below the network's smallest", gets=r"x\.png: 3 x 3, smaller .*\(5 x 5\)", spoil=small),
        measured("values that are one word", "values=sea", gets="error: values: expected a class, .*found 'sea'"),
        measured("a misspelt class", "values={0: sky, 1: see}", gets="error: values: unknown class .see.; did"),
    ],
    "The page": [
        opened("no checkpoint", gets="ckpt: is required; see python scripts/demo.py"),
        opened("three checkpoints", "ckpt=[a.ckpt,b.ckpt,c.ckpt]", "port=0", gets="one checkpoint or two, found 3"),
        opened(
            "two networks of other classes",
            *("ckpt=[best.ckpt,b.ckpt]", "port=0"),
            gets="b.ckpt was trained for the classes air, .* but best.ckpt for sky",
            make=lambda: write(Path("b.ckpt"), trained(first="air")),
        ),
        opened(
            "a network of sequences",
            *("ckpt=best.ckpt", "port=0"),
            gets="best.ckpt: a network of sequences, .*; use python scripts/predict.py",
            make=lambda: CHECKPOINT.write_bytes(trained(1)),
        ),
        opened("a port that cannot be", "ckpt=best.ckpt", "port=99999", gets="port: expected an .*, found 99999"),
        opened("a port that is a word", "ckpt=best.ckpt", "port=http", gets="port: expected an integer .*'http'"),
        opened("no picture is small enough", "ckpt=best.ckpt", "max_megapixels=0", gets="max_meg.* above 0, found 0"),
        opened(
            "an empty folder of pictures",
            *("ckpt=best.ckpt", "port=0", "images=photos"),
            gets="images=photos: no images here; expected a folder",
            make=PHOTO.parent.mkdir,
        ),
        uploaded("a picture too large", lambda: photo(noise(1000, 1000)), "x.png: 1000 x 1000 pixels, more than .*0.5"),
        uploaded("4 000 000 000 000 000 000 pixels, by its header", lambda: write(PHOTO, HUGE), "x.png: 2147483647 x"),
        uploaded("a TIFF of three pages", lambda: photo(noise(3, 24, 32), **PAGES), "3 pages, .*predict.py", ".tif"),
    ],
}
"""By kind, what is wrong, how it is given and what it gets."""

EVERY: dict[str, list[Input]] = {**INPUTS, **AFTER}
"""The whole table."""


def entries() -> Iterable[tuple[str, Input]]:
    """Every input with its kind."""
    return ((kind, entry) for kind, members in EVERY.items() for entry in members)
