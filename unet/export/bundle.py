"""A checkpoint becomes a folder that runs elsewhere: model, what it takes and gives, example; checked, or not made."""

import json
import platform
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from unet.errors import UserError, did_you_mean
from unet.export.check import parity, seam, side_by_side, traced_size
from unet.export.deployed import AXES, Deployed, Given, given
from unet.export.formats import FORMATS, INPUT, Format, Program, require
from unet.export.operators import culprit, first_line
from unet.export.pictures import Picture, pictures
from unet.export.recipe import Recipe, recipe
from unet.export.variants import VARIANTS, check_variant, cost, write_int8
from unet.record import CHECKPOINTS, METRICS, commit, read_json, sha256, whole_folder
from unet.segmenter import Segmenter, load

BUNDLE, EXAMPLE = "bundle.json", "run.py"
TEMPLATES = Path(__file__).parent / "templates"
CALIBRATED = {1: 2**16, 2: 512, 3: 64}
"""Samples along an axis of an image that calibrates, by the number of axes: every activation stays in memory."""


@dataclass(frozen=True)
class Wanted:
    """What to make of a checkpoint; the keys of ``configs/export.yaml``.

    Raises:
        UserError: a choice that does not exist, or choices that do not go together.
    """

    format: str = "onnx"
    labels: bool = False
    variant: str = "float32"
    calibration: Path | None = None
    values: Mapping[Any, str] | None = None
    agreement: float = 0.98
    dtype: str | None = None

    def __post_init__(self):
        for key, value, valid in (("format", self.format, FORMATS), ("variant", self.variant, VARIANTS)):
            if value not in valid:
                raise UserError(
                    f"{key}: unknown {value!r}{did_you_mean(str(value), valid)} (valid: {', '.join(valid)})"
                )
        if not isinstance(self.labels, bool):
            raise UserError(f"labels: expected true or false, found {self.labels!r}")
        check_variant(self.variant, self.format, self.calibration, self.agreement)
        require(self.format)


def export(checkpoint: Path, output: Path | None, wanted: Wanted) -> tuple[Path, dict[str, Any]]:
    """Write the bundle of a checkpoint and check it.

    Args:
        checkpoint: of a training.
        output: the bundle's folder, which must not exist; None: ``export_FORMAT[_VARIANT]`` in the run's folder.
        wanted: what to make.

    Returns:
        The folder, and what its ``bundle.json`` says.

    Raises:
        UserError: the checkpoint, an image or the folder is not fit, an operator cannot be exported, or the model
            written is not the one trained. Nothing is then left of the bundle.
    """
    segmenter = load(checkpoint)
    takes = given(segmenter, wanted.dtype, FORMATS[wanted.format].single)
    output = output or default_output(checkpoint, wanted)
    if output.exists():
        raise UserError(f"{output}: already there and not overwritten; remove it, or give another output=FOLDER")
    found = ([], [])
    if wanted.calibration is not None:
        found = pictures(wanted.calibration, takes, segmenter.classes, wanted.values)
    try:
        with warnings.catch_warnings(), whole_folder(output) as folder:
            warnings.simplefilter("ignore")  # what the exporters and the network warn of is checked
            return output, fill(folder, segmenter, takes, wanted, *found, checkpoint)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); give another output=FOLDER"
        ) from None


def fill(
    folder: Path,
    segmenter: Segmenter,
    takes: Given,
    wanted: Wanted,
    calibrating: list[Picture],
    measuring: list[Picture],
    checkpoint: Path,
) -> dict[str, Any]:
    """Write the bundle's files into ``folder``, checking each step; returns what ``bundle.json`` says."""
    form = FORMATS[wanted.format]
    model = folder / f"model{form.suffix}"
    probabilities = Deployed(segmenter)
    tiles = recipe(segmenter)
    checked = written(Deployed(segmenter, wanted.labels), probabilities, takes, wanted, model)
    accuracy = None
    if wanted.variant != "float32":
        if wanted.variant == "int8":
            write_int8(model, [centred(picture) for picture in calibrating])
        else:
            form.write(Deployed(segmenter, wanted.labels, bf16=True), example(takes), output_name(wanted), model)
        serves_all_sizes(form.open(model), probabilities, takes, wanted)
        accuracy = cost(form.open(model), probabilities, measuring, len(segmenter.classes))
        refuse_below(accuracy, wanted)
    program = probabilities if wanted.labels else form.open(model)
    said = {
        "format": wanted.format,
        "variant": {"name": wanted.variant, "what": VARIANTS[wanted.variant].what, "against_float32": accuracy},
        "model": {"file": model.name, "sha256": sha256(model), "bytes": model.stat().st_size},
        "checkpoint": {"file": checkpoint.name, "sha256": sha256(checkpoint)},
        "classes": segmenter.classes,
        "colors": [list(color) for color in segmenter.colors],
        "input": {
            "name": INPUT,
            "layout": takes.layout,
            "dtype": takes.dtype,
            "channels": takes.channels,
            "range": None if takes.span is None else list(takes.span),
            "mean": takes.mean,
            "std": takes.std,
            "smallest": list(takes.smallest),
            "total_stride": list(takes.stride),
            "normalised_inside": True,
            "eval_transforms": segmenter.eval_transforms,
        },
        "output": {
            "name": output_name(wanted),
            "layout": f"B {AXES[len(takes.stride)]}" if wanted.labels else f"B K {AXES[len(takes.stride)]}",
            "dtype": "uint8" if wanted.labels else "float32",
        },
        "log_weights": segmenter.description.get("log_weights"),
        "tiles": tiles.described(wanted.labels),
        "seam": seam_score(program, takes, tiles, [*calibrating, *measuring]),
        "checked_against_torch": {"variant": "float32", **checked},
        "metrics": metrics_of(checkpoint),
        "versions": versions(form),
    }
    (folder / BUNDLE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(TEMPLATES / f"run_{wanted.format}.py", folder / EXAMPLE)
    return said


def written(net: Deployed, probabilities: Deployed, takes: Given, wanted: Wanted, path: Path) -> dict[str, Any]:
    """Write the float32 network and hold it against torch; who is to blame is looked for only where it fails."""
    form, model = FORMATS[wanted.format], net.segmenter.description["model"]
    try:
        form.write(net, example(takes), output_name(wanted), path)
        return parity(form.open(path), probabilities, takes)
    except Exception as error:
        blamed = culprit(model, form)
        if blamed is not None:
            raise UserError(f"format={wanted.format}: {blamed}") from error
        if isinstance(error, UserError):
            raise UserError(
                f"format={wanted.format}: the model written is not the one trained: {error}; nothing was kept"
            ) from error
        raise UserError(
            f"format={wanted.format}: the network cannot be exported or run ({first_line(error)}), though each of its "
            f"operators can; try {' or '.join(f'format={name}' for name in FORMATS if name != wanted.format)}"
        ) from error


def example(takes: Given) -> Tensor:
    """The image a network is traced with: two, of a size that neither is the smallest nor the same along two axes."""
    return takes.sample(2, traced_size(takes.stride))


def output_name(wanted: Wanted) -> str:
    return "labels" if wanted.labels else "probabilities"


def serves_all_sizes(program: Program, net: Deployed, takes: Given, wanted: Wanted) -> None:
    """Raise UserError where a variant's program does not run at a size at which the float32 one was checked."""
    try:
        for _ in side_by_side(program, net, takes):
            pass
    except Exception as error:
        raise UserError(
            f"variant={wanted.variant}: {first_line(error)}; nothing was kept, leave variant out"
        ) from error


def refuse_below(accuracy: Mapping[str, Any], wanted: Wanted) -> None:
    found = accuracy["label_agreement"]
    if found < wanted.agreement:
        scores = [
            f", mIoU {accuracy[f'miou_{name}']:.4f} ({name})" for name in ("float32", "variant") if len(accuracy) > 2
        ]
        raise UserError(
            f"variant={wanted.variant}: gives the label of float32 at {found:.2%} of the samples of "
            f"{accuracy['images']} images{''.join(scores)}, agreement={wanted.agreement:g} is asked for; lower it if "
            f"that is good enough, or leave variant out"
        )


def centred(picture: Picture) -> Picture:
    """The middle of a picture, at most ``CALIBRATED`` along an axis."""
    size = picture.image.shape[2:]
    most = CALIBRATED[len(size)]
    window = [slice((n - min(n, most)) // 2, (n + min(n, most)) // 2) for n in size]
    return Picture(picture.name, picture.image[:, :, *window], None)


def seam_score(program: Program, takes: Given, tiles: Recipe, seen: list[Picture]) -> dict[str, Any]:
    """:func:`seam` on the first picture larger than a tile, no more of it than need be; else on even patches."""
    size = tiles.spanning()
    for picture in seen:
        image = picture.image[:, :, *(slice(n) for n in size)]
        if any(n > m for n, m in zip(image.shape[2:], tiles.tile, strict=True)):
            return {**seam(program, image, tiles), "image": picture.name}
    return {**seam(program, takes.sample(1, size), tiles), "image": "random patches under noise"}


def default_output(checkpoint: Path, wanted: Wanted) -> Path:
    """In the run's folder where the checkpoint lies in one, else beside the checkpoint."""
    parts = ("export", wanted.format, *[wanted.variant] * (wanted.variant != "float32"), *["labels"] * wanted.labels)
    return (run_of(checkpoint) or checkpoint.parent) / "_".join(parts)


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that left the checkpoint; None for one that lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def metrics_of(checkpoint: Path) -> dict[str, Any] | None:
    """The scores of the run that left the checkpoint; None where there are none."""
    run = run_of(checkpoint)
    return (read_json(run / METRICS) or None) if run else None


def versions(form: Format) -> dict[str, str]:
    packages = {"torch", "numpy", *form.needs, *form.runs_on}
    return {
        **{name: version(name) for name in sorted(packages)},
        "python": platform.python_version(),
        "commit": commit(),
    }
