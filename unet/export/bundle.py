"""Export of a checkpoint as a folder: the model, ``bundle.json`` and an example; removed again if a check fails."""

import json
import platform
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unet.errors import UserError, did_you_mean
from unet.export.calibration import LabelledImage, calibration_images, center_crop
from unet.export.check import parity, side_by_side, tiling_error, traced_size
from unet.export.deployed import Deployed, InputSpec, input_spec
from unet.export.formats import FORMATS, INPUT, Format, Program, require
from unet.export.quantization import quantization_error, write_int8
from unet.export.tiles import TileSpec, tile_spec
from unet.inference.checkpoint import load
from unet.inference.segmenter import Segmenter
from unet.io.atomic import atomic_folder, read_json, sha256
from unet.io.provenance import commit
from unet.io.run_folder import CHECKPOINTS, METRICS

BUNDLE, EXAMPLE = "bundle.json", "run.py"
TEMPLATES = Path(__file__).parent / "templates"
VARIANTS = {
    "float32": "weights and arithmetic in float32",
    "int8": "convolutions in 8-bit integers, weights per channel, calibrated; the last one in float32",
}


@dataclass(frozen=True)
class ExportOptions:
    """What to export; the keys of ``configs/export.yaml``.

    Raises:
        UserError: an unknown choice, or choices that exclude each other.
    """

    format: str = "onnx"
    labels: bool = False
    variant: str = "float32"
    calibration: Path | None = None
    values: Mapping[Any, str] | None = None
    min_label_agreement: float = 0.98
    dtype: str | None = None

    def __post_init__(self):
        for key, value, valid in (("format", self.format, FORMATS), ("variant", self.variant, VARIANTS)):
            if value not in valid:
                raise UserError(
                    f"{key}: unknown {value!r}{did_you_mean(str(value), valid)} (valid: {', '.join(valid)})"
                )
        if not isinstance(self.labels, bool):
            raise UserError(f"labels: expected true or false, found {self.labels!r}")
        if self.variant == "int8" and self.format != "onnx":
            raise UserError(f"variant=int8 format={self.format}: int8 is written as ONNX only; use format=onnx")
        if self.variant == "int8" and self.calibration is None:
            raise UserError(
                "variant=int8: add calibration=FOLDER of images like those of the training (if it holds images/ and "
                "masks/, mIoU is measured as well)"
            )
        if (
            not isinstance(self.min_label_agreement, int | float)
            or isinstance(self.min_label_agreement, bool)
            or not 0 <= self.min_label_agreement <= 1
        ):
            raise UserError(f"min_label_agreement: expected a fraction of 0 to 1, found {self.min_label_agreement!r}")
        require(self.format)

    @property
    def output_name(self) -> str:
        return "labels" if self.labels else "probabilities"


def export(checkpoint: Path, output: Path | None, options: ExportOptions) -> tuple[Path, dict[str, Any]]:
    """Write the bundle of a checkpoint and check it.

    Args:
        checkpoint: of a training.
        output: folder of the bundle, which must not exist; None: ``export_FORMAT[_VARIANT]`` in the run's folder.
        options: what to export.

    Returns:
        The folder and the content of its ``bundle.json``.

    Raises:
        UserError: an unusable checkpoint, image or folder, a network that cannot be exported, or an exported model
            with other outputs than the trained one. Nothing is left of the bundle then.
    """
    segmenter = load(checkpoint)
    spec = input_spec(segmenter, options.dtype, FORMATS[options.format].single)
    output = output or default_output(checkpoint, options)
    if output.exists():
        raise UserError(f"{output}: already there and not overwritten; remove it, or give another output=FOLDER")
    images = ([], [])
    if options.calibration is not None:
        images = calibration_images(options.calibration, spec, segmenter.classes, options.values)
    try:
        with warnings.catch_warnings(), atomic_folder(output) as folder:
            warnings.simplefilter("ignore")  # what the exporters and the network warn of is checked
            return output, write_bundle(folder, segmenter, spec, options, *images, checkpoint)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); give another output=FOLDER"
        ) from None


def write_bundle(
    folder: Path,
    segmenter: Segmenter,
    spec: InputSpec,
    options: ExportOptions,
    calibration: list[LabelledImage],
    measured: list[LabelledImage],
    checkpoint: Path,
) -> dict[str, Any]:
    """Write the files of a bundle into ``folder`` and check each; return the content of ``bundle.json``."""
    form = FORMATS[options.format]
    model = folder / f"model{form.suffix}"
    probabilities, tiles, accuracy = Deployed(segmenter), tile_spec(segmenter), None
    checks = write_and_verify(Deployed(segmenter, options.labels), probabilities, spec, options, model)
    if options.variant == "int8":
        write_int8(model, [center_crop(item) for item in calibration])
        accuracy = measure_int8(form.open(model), probabilities, spec, options, measured, len(segmenter.classes))
    program = probabilities if options.labels else form.open(model)
    bundle = {
        "format": options.format,
        "variant": {
            "name": options.variant,
            "description": VARIANTS[options.variant],
            "against_float32": accuracy,
        },
        "model": {"file": model.name, "sha256": sha256(model), "bytes": model.stat().st_size},
        "checkpoint": {"file": checkpoint.name, "sha256": sha256(checkpoint)},
        "classes": segmenter.classes,
        "colors": [list(color) for color in segmenter.colors],
        "input": {
            "name": INPUT,
            "layout": f"B C {spec.axes}",
            "dtype": spec.dtype,
            "channels": spec.channels,
            "range": None if spec.value_range is None else list(spec.value_range),
            "mean": spec.mean,
            "std": spec.std,
            "smallest": list(spec.min_size),
            "total_stride": list(spec.total_stride),
            "normalised_inside": True,
            "eval_transforms": segmenter.eval_transforms,
        },
        "output": {
            "name": options.output_name,
            "layout": f"B {spec.axes}" if options.labels else f"B K {spec.axes}",
            "dtype": "uint8" if options.labels else "float32",
        },
        "log_weights": segmenter.description.get("log_weights"),
        "tiles": tiles.to_json(),
        "tiling_error": measure_tiling(program, spec, tiles, [*calibration, *measured]),
        "checked_against_torch": {"variant": "float32", **checks},
        "metrics": metrics_of(checkpoint),
        "versions": versions(form),
    }
    (folder / BUNDLE).write_text(json.dumps(bundle, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(TEMPLATES / f"run_{options.format}.py", folder / EXAMPLE)
    return bundle


def write_and_verify(
    net: Deployed, probabilities: Deployed, spec: InputSpec, options: ExportOptions, path: Path
) -> dict[str, Any]:
    """Write the float32 network and compare it with torch; return what was compared.

    It is traced with two images of a size that is neither the smallest nor the same along two axes.
    """
    form = FORMATS[options.format]
    try:
        form.write(net, spec.random_image(2, traced_size(spec.total_stride)), options.output_name, path)
        return parity(form.open(path), probabilities, spec)
    except Exception as error:
        other = next(name for name in FORMATS if name != options.format)
        raise UserError(
            f"format={options.format}: the network cannot be exported: {first_line(error)}; nothing was written, try "
            f"format={other}, or train with another operator (model.down, model.up, model.context)"
        ) from error


def first_line(error: Exception, most: int = 200) -> str:
    """Return the first line of the message of an exporter, which may have hundreds."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def measure_int8(
    program: Program,
    net: Deployed,
    spec: InputSpec,
    options: ExportOptions,
    images: list[LabelledImage],
    num_classes: int,
) -> dict[str, Any]:
    """Compare an int8 program with float32. Raises UserError if it fails at some size or agrees too rarely."""
    try:
        for _ in side_by_side(program, net, spec):
            pass
    except Exception as error:
        raise UserError(f"variant=int8: {first_line(error)}; nothing was written, leave variant out") from error
    accuracy = quantization_error(program, net, images, num_classes)
    agreement = accuracy["label_agreement"]
    if agreement < options.min_label_agreement:
        scores = [f", mIoU {accuracy[key]:.4f} ({key[5:]})" for key in accuracy if key.startswith("miou_")]
        raise UserError(
            f"variant=int8: has the label of float32 at {agreement:.2%} of the samples of {accuracy['images']} images"
            f"{''.join(scores)}, below "
            f"min_label_agreement={options.min_label_agreement:g}; lower it if that is good enough, or leave "
            f"variant out"
        )
    return accuracy


def measure_tiling(program: Program, spec: InputSpec, tiles: TileSpec, images: list[LabelledImage]) -> dict[str, Any]:
    """Return the tiling error of a crop of the first image larger than a tile, else of a random image."""
    size = tiles.multi_tile_size()
    for item in images:
        image = item.image[:, :, *(slice(n) for n in size)]
        if any(n > m for n, m in zip(image.shape[2:], tiles.tile, strict=True)):
            return {**tiling_error(program, image, tiles), "image": item.name}
    return {**tiling_error(program, spec.random_image(1, size), tiles), "image": "random patches with noise"}


def default_output(checkpoint: Path, options: ExportOptions) -> Path:
    """Return a folder in the run's folder if the checkpoint is in one, else beside the checkpoint."""
    parts = ["export", options.format]
    parts += [options.variant] * (options.variant != "float32") + ["labels"] * options.labels
    return (run_of(checkpoint) or checkpoint.parent) / "_".join(parts)


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote the checkpoint; None for a checkpoint elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def metrics_of(checkpoint: Path) -> dict[str, Any] | None:
    """Return the scores of the run that wrote the checkpoint; None if there are none."""
    run = run_of(checkpoint)
    return (read_json(run / METRICS) or None) if run else None


def versions(form: Format) -> dict[str, str]:
    """Return the versions of the packages that wrote a bundle and of those that run it."""
    packages = {"torch", "numpy", *form.needs, *form.runs_on}
    return {
        **{name: version(name) for name in sorted(packages)},
        "python": platform.python_version(),
        "commit": commit(),
    }
