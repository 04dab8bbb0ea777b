"""Export a checkpoint as a folder with the model, ``bundle.json`` and an example, only if every check passes."""

import json
import platform
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unet.errors import UserError, did_you_mean
from unet.export.calibration import LabelledImage, calibration_images, center_crop
from unet.export.check import check_parity, output_pairs, tiling_error, trace_size
from unet.export.deployed import DeployedModel, InputSpec, input_spec
from unet.export.formats import (
    FORMATS,
    INPUT,
    Format,
    Program,
    UnsupportedOpset,
    check_opset,
    read_opset,
    require_packages,
)
from unet.export.quantization import quantization_error, write_int8
from unet.export.tiles import TileSpec, tile_spec
from unet.inference.checkpoint import load
from unet.inference.segmenter import Segmenter
from unet.io.atomic import atomic_folder, read_json, sha256
from unet.io.image_reader import ReadOptions
from unet.io.provenance import commit
from unet.io.run_folder import CHECKPOINTS, METRICS

BUNDLE, EXAMPLE = "bundle.json", "run.py"
TEMPLATE = Path(__file__).parent / "templates" / EXAMPLE
VARIANTS = {
    "float32": "weights and arithmetic in float32",
    "int8": "convolutions in 8-bit integers, weights per channel, calibrated; the last one in float32",
}


@dataclass(frozen=True)
class ExportOptions:
    """The keys of ``configs/export.yaml``. Raises UserError: an unknown value, or options that exclude each other."""

    format: str = "onnx"
    labels: bool = False
    variant: str = "float32"
    calibration: Path | None = None
    values: Mapping[Any, str] | None = None
    min_label_agreement: float = 0.98
    dtype: str | None = None
    opset: int | None = None
    size: Sequence[int] | None = None

    def __post_init__(self):
        for key, value, valid in (("format", self.format, FORMATS), ("variant", self.variant, VARIANTS)):
            if value not in valid:
                message = f"{key}: unknown {value!r}{did_you_mean(str(value), valid)}"
                raise UserError(f"{message} (valid: {', '.join(valid)})")
        if not isinstance(self.labels, bool):
            raise UserError(f"labels: expected true or false, found {self.labels!r}")
        if self.variant == "int8" and self.format != "onnx":
            raise UserError(f"variant=int8 format={self.format}: int8 is written as ONNX only; use format=onnx")
        if self.variant == "int8" and self.calibration is None:
            raise UserError("variant=int8: add calibration=FOLDER of images like the training images")
        limit = self.min_label_agreement
        if not isinstance(limit, int | float) or isinstance(limit, bool) or not 0 <= limit <= 1:
            raise UserError(f"min_label_agreement: expected a fraction of 0 to 1, found {limit!r}")
        if self.size is not None and self.variant == "int8":
            raise UserError("size= variant=int8: the calibration needs images of any size; leave one of the two out")
        if self.opset is not None and self.format != "onnx":
            raise UserError(f"opset={self.opset} format={self.format}: only ONNX has an opset; leave opset out")
        require_packages(self.format)
        if self.opset is not None:
            check_opset(self.opset)

    def output_json(self, axes: str) -> dict[str, str]:
        """Return name, layout and dtype of the model's output."""
        if self.labels:
            return {"name": "labels", "layout": f"B {axes}", "dtype": "uint8"}
        return {"name": "probabilities", "layout": f"B K {axes}", "dtype": "float32"}


def export(checkpoint: Path, output: Path | None, options: ExportOptions) -> tuple[Path, dict[str, Any]]:
    """Write the bundle of a checkpoint and verify it; return the folder and the content of its ``bundle.json``.

    ``output`` must not exist; None: :func:`default_output`.

    Raises:
        UserError: an unusable checkpoint, image or folder, a network that cannot be exported, or an exported model
            with other outputs than the trained one. No part of the bundle is left then.
    """
    segmenter = load(checkpoint)
    spec = input_spec(segmenter, options.dtype, FORMATS[options.format].allows_size_one, options.size)
    output = output or default_output(checkpoint, options)
    if output.exists():
        raise UserError(f"{output}: exists and is not overwritten; remove it, or choose another output=FOLDER")
    folder = options.calibration
    images = (
        ([], [])
        if folder is None
        else calibration_images(
            folder, spec, segmenter.classes, options.values, ReadOptions.from_description(segmenter.description)
        )
    )
    try:
        with warnings.catch_warnings(), atomic_folder(output) as folder:
            warnings.simplefilter("ignore")  # the outputs are verified instead
            return output, write_bundle(folder, segmenter, spec, options, images, checkpoint)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{output}: cannot be written ({reason}); choose another output=FOLDER") from None


def write_bundle(
    folder: Path,
    segmenter: Segmenter,
    spec: InputSpec,
    options: ExportOptions,
    images: tuple[list[LabelledImage], list[LabelledImage]],
    checkpoint: Path,
) -> dict[str, Any]:
    """Write the files of a bundle into ``folder``, verify them, and return the content of ``bundle.json``."""
    form = FORMATS[options.format]
    model = folder / f"model{form.suffix}"
    probabilities, accuracy, run = DeployedModel(segmenter), None, run_folder(checkpoint)
    tiles = tile_spec(segmenter, spec.size)
    checks = write_and_verify(DeployedModel(segmenter, options.labels), probabilities, spec, options, model)
    if options.variant == "int8":
        write_int8(model, [center_crop(item.image) for item in images[0]])
        accuracy = int8_accuracy(form.open(model), probabilities, spec, options, images[1])
    program = probabilities if options.labels or spec.size else form.open(model)
    bundle = {
        "format": options.format,
        "opset": read_opset(model) if options.format == "onnx" else None,
        "variant": {"name": options.variant, "description": VARIANTS[options.variant], "against_float32": accuracy},
        "model": {"file": model.name, "sha256": sha256(model), "bytes": model.stat().st_size},
        "checkpoint": {"file": checkpoint.name, "sha256": sha256(checkpoint)},
        "classes": segmenter.classes,
        "colors": [list(color) for color in segmenter.colors],
        "input": {**spec.to_json(), "name": INPUT, "eval_transforms": segmenter.eval_transforms},
        "output": options.output_json(spec.axes),
        "log_weights": segmenter.description.get("log_weights"),
        "tiles": tiles.to_json(),
        "tiling_error": measure_tiling_error(program, spec, tiles, [*images[0], *images[1]]),
        "checked_against_torch": {"variant": "float32", **checks},
        "metrics": (run and read_json(run / METRICS)) or None,
        "versions": versions(form),
    }
    (folder / BUNDLE).write_text(json.dumps(bundle, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(TEMPLATE, folder / EXAMPLE)
    return bundle


def write_and_verify(
    model: DeployedModel, probabilities: DeployedModel, spec: InputSpec, options: ExportOptions, path: Path
) -> dict[str, Any]:
    """Write the float32 model, compare it with torch, and return the figures of the comparison."""
    form = FORMATS[options.format]
    try:
        batch, size = (1, spec.size) if spec.size else (2, trace_size(spec.total_stride))
        image, name = spec.random_image(batch, size), options.output_json(spec.axes)["name"]
        form.write(model, image, name, path, spec.size is None, options.opset)
        return check_parity(form.open(path), probabilities, spec)
    except UnsupportedOpset:
        raise
    except Exception as error:
        alternative = next(name for name in FORMATS if name != options.format)
        raise UserError(
            f"format={options.format}: the network cannot be exported: {first_line(error)}; nothing was written, try "
            f"format={alternative}, or train with another operator (model.down, model.up, model.context)"
        ) from error


def first_line(error: Exception, max_length: int = 200) -> str:
    """Return the first line of an exporter's message, which may have hundreds."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def int8_accuracy(
    program: Program, net: DeployedModel, spec: InputSpec, options: ExportOptions, images: list[LabelledImage]
) -> dict[str, Any]:
    """Compare an int8 model with float32. Raises UserError if it fails at some size or agrees too rarely."""
    try:
        list(output_pairs(program, net, spec))
    except Exception as error:
        raise UserError(f"variant=int8: {first_line(error)}; nothing was written, leave variant out") from error
    accuracy = quantization_error(program, net, images)
    agreement, limit = accuracy["label_agreement"], options.min_label_agreement
    if agreement < limit:
        scores = [f", mIoU {accuracy[key]:.4f} ({key[5:]})" for key in accuracy if key.startswith("miou_")]
        raise UserError(
            f"variant=int8: agrees with float32 at {agreement:.2%} of the pixels of {accuracy['images']} images"
            f"{''.join(scores)}, below min_label_agreement={limit:g}; lower it if that is enough, or leave variant out"
        )
    return accuracy


def measure_tiling_error(
    program: Program, spec: InputSpec, tiles: TileSpec, images: list[LabelledImage]
) -> dict[str, Any]:
    """Return the tiling error of a crop of the first image larger than a tile, else of a random image."""
    size = tiles.multi_tile_size()
    for item in images:
        crop = item.image[:, :, *(slice(n) for n in size)]
        if any(n > m for n, m in zip(crop.shape[2:], tiles.tile, strict=True)):
            return {**tiling_error(program, crop, tiles), "image": item.name}
    return {**tiling_error(program, spec.random_image(1, size), tiles), "image": "random patches with noise"}


def default_output(checkpoint: Path, options: ExportOptions) -> Path:
    """Return a folder in the run's folder if the checkpoint is in one, else beside the checkpoint."""
    names = ["export", options.format, options.variant * (options.variant != "float32"), "labels" * options.labels]
    names += ["x".join(map(str, options.size or ())), f"opset{options.opset}" if options.opset else ""]
    return (run_folder(checkpoint) or checkpoint.parent) / "_".join(filter(None, names))


def run_folder(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote the checkpoint; None for a checkpoint elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def versions(form: Format) -> dict[str, str]:
    """Return the versions of Python, of the code, and of the packages that write and run a format."""
    packages = {name: version(name) for name in sorted({"torch", "numpy", *form.requires, *form.runtime})}
    return packages | {"python": platform.python_version(), "commit": commit()}
