"""Invalid inputs of prediction, evaluation, export and the demo; see bad_inputs.py."""

import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable
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
from bad_inputs import (
    CHECKPOINT,
    DATA,
    INPUTS,
    NONE_READ,
    RGB,
    Evil,
    Input,
    M,
    Outcome,
    X,
    bad_npy,
    bad_png,
    call_and_catch,
    composed,
    cut,
    every,
    training_data,
    typed,
    write,
)
from folders import CLASSES, folder_of, noise, save, swap
from networks import checkpoint
from omegaconf import OmegaConf
from PIL import Image

from unet import load
from unet.data.source import Array
from unet.demo.app import open_limited

PHOTO = Path("photos") / "x.png"
"""The image that is predicted, and its array where nothing is wrong with it."""
PIXELS = noise(24, 32, 3)
OPAQUE = np.stack([PIXELS[..., 0], np.full((24, 32), 255, np.uint8)], -1)
RUN, LABELS, NOTES = Path("run"), Path("labels"), Path("photos") / "notes.txt"
CONFIG, SCORES = RUN / "config.yaml", RUN / "metrics.json"
BEST, B = RUN / "checkpoints" / "best.ckpt", Path("b.ckpt")

# How an input is given


@functools.cache
def trained(spatial_dims: int = 2, channels: int = 3, dtype: str | None = "uint8", first: str = "sky") -> bytes:
    """Return a checkpoint's bytes; ``first`` is the name of its first class."""
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder), spatial_dims, channels, dtype=dtype, classes=[first, "sea", "land"])
        return path.read_bytes()


@functools.cache
def two_classes() -> bytes:
    """Return the bytes of a checkpoint of two classes in RGB."""
    model = {"in_channels": 3, "num_classes": 2, "width": 4, "depth": 2, "spatial_dims": 2}
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder), model=model, classes=CLASSES, colors=[[0, 0, 0], [0, 255, 0]])
        return path.read_bytes()


def arguments(options: tuple[str, ...], *usual: str) -> list[str]:
    """Return ``options`` and those of the usual arguments that they do not replace."""
    keys = [option.partition("=")[0] for option in options]
    return [*(word for word in usual if word.partition("=")[0] not in keys), *options]


def predicted(
    name: str,
    make: Callable[[], Any],
    *options: str,
    gets: str,
    status: int = 1,
    given: str = "photos",
    net: tuple[int, int] = (2, 3),
    tile: list[int] | None = None,
) -> Input:
    """Predict what ``make`` puts into photos/; a valid result must equal that of the array ``make`` returns.

    ``net`` is the network's axes and channels.
    """
    made: list[Any] = []

    def prepare() -> None:
        CHECKPOINT.write_bytes(trained(*net))
        PHOTO.parent.mkdir()
        made[:] = [make()]

    tiled = [f"tile={tile}".replace(" ", "")] if tile else []
    words = arguments(options, "ckpt=best.ckpt", f"input={given}", "output=labels", *tiled)
    command = typed(name, "scripts/predict.py", *words, gets=gets, status=status, make=prepare)

    def run() -> Outcome:
        outcome = command.run()
        if outcome.status:
            return outcome
        with Image.open(LABELS / "x.png") as file:
            labels = np.asarray(file)
        assert np.array_equal(labels, load(CHECKPOINT).predict(made[0], tile=tile))
        return Outcome(0, f"{labels.shape[0]} x {labels.shape[1]} labels")

    return replace(command, run=run)


def right(name: str, make: Callable[[], Any], tile: list[int] | None = None) -> Input:
    return predicted(name, make, gets="24 x 32 labels", status=0, tile=tile)


def evaluated(name: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """Evaluate a run of two classes in RGB."""

    def make() -> None:
        training_data()
        BEST.parent.mkdir(parents=True)
        BEST.write_bytes(two_classes())
        OmegaConf.save(composed(), CONFIG, resolve=True)
        spoil()

    command = typed(name, "scripts/evaluate.py", *arguments(options, f"ckpt={BEST}"), gets=gets, make=make)

    def run() -> Outcome:
        outcome = command.run()
        return replace(outcome, message=outcome.message.replace(f"{Path.cwd()}/", ""))  # configs are named in full

    return replace(command, run=run)


def exported(name: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """Export a checkpoint, beside which two images lie in data/."""

    def make() -> None:
        CHECKPOINT.write_bytes(trained())
        folder_of(DATA, list("ax"))
        spoil()

    return typed(name, "scripts/export.py", *arguments(options, "ckpt=best.ckpt"), gets=gets, make=make)


def measured(name: str, *options: str, gets: str, spoil: Callable[[], Any] = list) -> Input:
    """Export and measure on data/."""
    return exported(name, *arguments(options, "variant=int8", "calibration=data"), gets=gets, spoil=spoil)


def opened(name: str, *options: str, gets: str, make: Callable[[], Any] = list) -> Input:
    """Start a demo that refuses its options; Gradio is only looked for."""

    def prepare() -> None:
        CHECKPOINT.write_bytes(trained())
        make()

    command = typed(name, "scripts/demo.py", *arguments(options, "port=0"), gets=gets, make=prepare)

    def run() -> Outcome:
        gradio = ModuleType("gradio")
        gradio.__spec__ = ModuleSpec("gradio", None)
        with contextlib.nullcontext() if find_spec("gradio") else mock.patch.dict(sys.modules, gradio=gradio):
            return command.run()

    return replace(command, run=run)


def uploaded(name: str, make: Callable[[], Any], pattern: str, suffix: str = ".png") -> Input:
    """Give a file to the demo, which takes half a million pixels."""

    def run() -> Outcome:
        PHOTO.parent.mkdir()
        make()
        CHECKPOINT.write_bytes(trained(2, 3))
        model = load(CHECKPOINT)
        return call_and_catch(lambda: str(open_limited(PHOTO.with_suffix(suffix), 0.5, model).size))

    return Input(name, run, pattern)


def without_gpu(entry: Input) -> Input:
    def run() -> Outcome:
        with (
            mock.patch("torch.cuda.is_available", return_value=False),
            mock.patch("torch.backends.mps.is_available", return_value=False),
        ):
            return entry.run()

    return replace(entry, run=run)


# How it is made


def photo(pixels: Any = PIXELS, suffix: str = ".png", **options: Any) -> Array:
    """Write a picture or an array as photos/x; return what it shows."""
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
    """Write the first half of a file."""
    photo(pixels, suffix, **options)
    cut(PHOTO.with_suffix(suffix), 0.5)


def stored(pixels: Array) -> Array:
    """Write ``PIXELS`` in another form."""
    photo(pixels, ".npy")
    return PIXELS


def others(path: Path) -> None:
    """Write a file of that name that predict did not write."""
    photo()
    save(path, noise(3, 3))


def without_trainer() -> None:
    write(CONFIG, CONFIG.read_text().partition("\ntrainer:")[0])


def weights_of_nan() -> None:
    saved = torch.load(BEST, weights_only=True)
    saved["state_dict"]["net.head.bias"].fill_(torch.nan)
    torch.save(saved, BEST)


def small() -> None:
    swap(X, noise(3, 3, 3))
    swap(M, noise(3, 3, below=2))


def written(path: Path, text: str | bytes) -> Callable[[], None]:
    return lambda: write(path, text)


def saved(path: Path = CHECKPOINT, *network: Any, **options: Any) -> Callable[[], None]:
    return lambda: write(path, trained(*network, **options))


GREY16 = noise(24, 32, below=65536, dtype="uint16")
STRIPS: dict[str, Any] = {"suffix": ".tif", "photometric": "rgb", "compression": "zlib", "rowsperstrip": 4}
PAGES: dict[str, Any] = {"suffix": ".tif", "photometric": "minisblack"}
OTHER_CLASSES = ("data=folder", "data.root=data", "data.source.classes=[sky,sea]")
HUGE = bad_png(2**31 - 1, 2**31 - 1)
NAN = np.full((24, 32, 3), np.nan, "float32")
NO_IMAGES = r"no images found; expected a folder with images \(\.bmp"

# The table

EVERY: dict[str, list[Input]] = INPUTS | {
    "Prediction": [
        typed("no input", "scripts/predict.py", "ckpt=best.ckpt", "output=labels", gets="input: is required; see"),
        predicted("a misspelt key", photo, "overlp=0.5", gets="overlp: no such key; did you mean overlap"),
        predicted("no such input", list, given="gone", gets="input=gone: no images found; expected a file, a folder"),
        predicted("a pattern that matches nothing", photo, given="photos/*.tif", gets=r"\*\.tif: no images found; exp"),
        predicted("an empty folder", list, gets=NO_IMAGES),
        predicted("a text", lambda: write(NOTES, "x"), given=str(NOTES), gets=r"notes\.txt: unsupported format"),
        predicted(
            "a film", lambda: write(PHOTO.with_suffix(".mp4"), "x"), given="photos/x.mp4", gets="unsupported .*; conv"
        ),
        predicted("a PNG cut off", halved, gets=rf"x\.png: {NONE_READ}"),
        predicted("a TIFF cut off", lambda: halved(suffix=".tif", photometric="rgb"), gets=r"x\.tif: .* is truncated"),
        predicted("a packed TIFF cut off", lambda: halved(**STRIPS), gets=r"x\.tif: cannot be read .*; replace"),
        predicted("a file of no bytes", lambda: write(PHOTO, b""), gets=rf"x\.png: {NONE_READ} \(the file is empty"),
        predicted("a text called .png", lambda: write(PHOTO, "hello"), gets=rf"x\.png: {NONE_READ} \(it holds no"),
        predicted(
            "a TIFF of NaN",
            lambda: photo(NAN, ".tif", photometric="rgb"),
            gets="1 of 1 files are doubtful",
            status=1,
        ),
        predicted("values of 1e300", lambda: photo(PIXELS * 1e300, ".npy"), gets=r"x\.npy: values beyond .*; rescale"),
        predicted("five channels", lambda: photo(noise(24, 32, 5), ".npy"), gets="5 channels, .* trained on 3"),
        predicted("colour for a network of grey", photo, net=(2, 1), gets="3 channels, .* on 1; convert it to grey"),
        right("grey with alpha for a network of colour", lambda: photo(Image.fromarray(OPAQUE, "LA"))),
        predicted("transparent pixels", lambda: photo(noise(24, 32, 4)), gets="labels of 1 of 1 files are doubtful"),
        predicted(
            "transparent pixels, strict", lambda: photo(noise(24, 32, 4)), "strict=true", gets="not opaque: .*strict"
        ),
        predicted(
            "black", lambda: photo(PIXELS * np.uint8(0)), "strict=true", gets="every value of the image is 0; che"
        ),
        predicted(
            "a threshold with three classes", photo, "threshold=0.3", gets="two classes; .* 3: sky, sea, land; use"
        ),
        predicted(
            "a threshold in percent", photo, "threshold=30", gets="threshold: expected .* between 0 and 1, found 30"
        ),
        predicted("labels of no format", photo, "labels=colour", gets="labels: unknown 'colour'; did you mean color"),
        right("CMYK", lambda: photo(Image.fromarray(noise(24, 32, 4), "CMYK"), ".tif")),
        predicted("a TIFF of three pages", lambda: photo(noise(3, 24, 32), **PAGES), gets="takes images with 2 axes"),
        predicted(
            "4 000 000 000 000 000 000 pixels, by its header",
            lambda: write(PHOTO, HUGE),
            gets="more than .* pixels, which",
        ),
        predicted("-1 rows", lambda: write(PHOTO.with_suffix(".npy"), bad_npy("(-1, 3)")), gets="of numbers"),
        predicted("one pixel", lambda: photo(PIXELS[:1, :1]), gets="1 x 1 labels", status=0),
        right("16-bit grey: read with all 16", lambda: photo(GREY16)),
        right("true and false", lambda: photo(PIXELS[..., 0] > 99, ".npy")),
        right("an array laid out by columns", lambda: stored(np.asfortranarray(PIXELS))),
        right("big-endian numbers", lambda: stored(PIXELS.astype(">u2"))),
        predicted("objects with code in them", lambda: photo(np.array([Evil()]), ".npy"), gets=r"x\.npy: .*numpy.save"),
        predicted("complex numbers", lambda: photo(PIXELS * 1j, ".npy"), gets="complex128, expected one of real"),
        predicted("five axes", lambda: photo(noise(2, 2, 24, 32, 3), ".npy"), gets="of 2 x 2 x 24 x 32 x 3, but"),
        predicted("output is a file", lambda: (photo(), write(LABELS, "x")), gets="output=labels: cannot be made"),
        predicted("output is input", photo, "output=photos", gets=r"output=photos: contains x\.png, an input; choose"),
        predicted("labels/x.png is somebody's", lambda: others(LABELS / "x.png"), gets="; overwrite=true re"),
        predicted("two images of one stem", lambda: (photo(), photo(RGB(), ".jpg")), gets=r"x\.png: .* of .*x\.jpg"),
        predicted("a tile of no rows", photo, "tile=[0,32]", gets=r"tile: expected null or 2 .*, found \[0, 32\]"),
        right("a tile below the stride: made a multiple", photo, tile=[1, 1]),
        predicted("tiles that overlap wholly", photo, "overlap=1.0", gets="overlap: expected a fraction .* 1.0"),
        predicted("no tile at a time", photo, "batch=0", gets="batch: expected an integer of at least 1, found 0"),
        predicted("half precision", photo, "precision=half", gets="precision: expected one of auto, .*, found 'half'"),
        without_gpu(
            predicted("no such device", photo, "device=cuda", gets="device=cuda: not available; .* auto, cpu$")
        ),
        predicted("no threads", photo, "threads=0", gets="threads: expected null or an integer of 1 to 1024, found 0"),
        predicted("a yes that is no true", photo, "tta=yes", gets="tta: expected true or false, found 'yes'"),
        predicted("a picture for a checkpoint", photo, "ckpt=photos/x.png", gets="x.png: damaged, not a checkpoint"),
    ],
    "Evaluation": [
        typed("no checkpoint", "scripts/evaluate.py", gets="ckpt: is required; see python scripts/evaluate.py"),
        evaluated("a misspelt key", "splt=val", gets="splt: no such key; did you mean split"),
        evaluated("a misspelt key of the data", "data.rot=other", gets="data.rot: no such key .*; did you mean dat"),
        evaluated("a split that is none", "split=nonsense", gets=r"split=nonsense: .*no such split \(valid: train, "),
        evaluated("no config of the run", gets="run/config.yaml: no such .* data=NAME", spoil=CONFIG.unlink),
        evaluated("a config of no bytes", gets="run/config.yaml: no key seed; expected the", spoil=written(CONFIG, "")),
        evaluated("a config cut off", gets="config.yaml: no key trainer.precision; expected", spoil=without_trainer),
        evaluated("a config that is no text", gets="config.yaml: cannot be read", spoil=written(CONFIG, b"\xff\xfe\0")),
        evaluated("NaN weights", gets="best.ckpt: net.head.bias holds NaN .*; take an earlier", spoil=weights_of_nan),
        evaluated("data of other classes", *OTHER_CLASSES, gets="classes sky, sea, but .* was trained for back"),
        evaluated("data of other channels", gets="images of 1 channels .*on 3", spoil=lambda: every(X, noise(12, 10))),
        evaluated(
            "half precision", "trainer.precision=half", gets="trainer.precision: expected one of auto, .*, found 'half'"
        ),
        evaluated("output holds scores", "output=run", gets="exists already; choose", spoil=written(SCORES, "{}")),
    ],
    "Export": [
        exported("a misspelt key", "fromat=pt2", gets="fromat: no such key; did you mean format"),
        exported("no such format", "format=tflite", gets=r"format: unknown 'tflite' \(valid: onnx, pt2\)"),
        exported("labels that are no boolean", "labels=maybe", gets="labels: expected true or false, found 'maybe'"),
        exported("an old opset", "opset=13", gets=r"opset: expected null or an integer of 18 \(the oldest .*found 13"),
        exported("a size between", "size=[15,16]", gets=r"size: expected 2 multiples of .*, found \[15, 16\]"),
        exported("no such variant", "variant=int4", gets="variant: unknown 'int4'; did you mean int8"),
        exported("nothing to calibrate on", "variant=int8", gets="variant=int8: add calibration=FOLDER"),
        exported("a variant of the other format", "variant=int8", "format=pt2", gets="pt2: .*; use format=onnx"),
        exported("output is there", "format=pt2", "output=data", gets="data: exists and is not overwritten"),
        exported("an agreement in percent", "format=pt2", "min_label_agreement=98", gets="agreement: .*, found 98"),
        exported("another type than the training's", "format=pt2", "dtype=uint16", gets="dtype=uint16: .* on uint8 im"),
        exported("no type", "format=pt2", gets="lacks the dtype .*; add dtype=uint8", spoil=saved(dtype=None)),
        measured("no such images", "calibration=gone", gets="gone: no such folder; calibration=FOLDER holds"),
        measured("one image", gets="calibration=data: 1 images; add images", spoil=lambda: (X.unlink(), M.unlink())),
        measured("an image of grey", gets=r"x\.png: 12 x 10 x 1 .*expected 3", spoil=lambda: swap(X, noise(12, 10))),
        measured("an image below the network's smallest", gets=r"x\.png: 3 x 3, smaller .*\(4 x 4\)", spoil=small),
        measured("values that are one word", "values=sea", gets="error: values: expected a class, .*found 'sea'"),
        measured("a misspelt class", "values={0: sky, 1: see}", gets="error: values: unknown class .see.; did"),
    ],
    "The demo": [
        opened("no checkpoint", "ckpt=null", gets="ckpt: is required; see python scripts/demo.py"),
        opened("three checkpoints", "ckpt=[a.ckpt,b.ckpt,c.ckpt]", gets="one checkpoint or two, found 3"),
        opened("classes", "ckpt=[best.ckpt,b.ckpt]", gets="b.ckpt was .* air, .* but", make=saved(B, first="air")),
        opened("sequences", "ckpt=best.ckpt", gets="best.ckpt: a network for sequences, ", make=saved(CHECKPOINT, 1)),
        opened("a port that cannot be", "ckpt=best.ckpt", "port=99999", gets="port: expected an .*, found 99999"),
        opened("no picture is small enough", "ckpt=best.ckpt", "max_megapixels=0", gets="max_meg.* above 0, found 0"),
        opened("an empty folder", "ckpt=best.ckpt", "images=photos", gets="photos: no images", make=PHOTO.parent.mkdir),
        uploaded("a picture too large", lambda: photo(noise(1000, 1000)), "x.png: 1000 x 1000 pixels, more than .*0.5"),
    ],
}
