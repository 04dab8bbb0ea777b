"""Embed pictures in the page as data URIs, and select the predictions of every arm."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unet.report.analysis import SweepAnalysis

PREDICTIONS = "predictions.png"
WIDTH = 640
"""Largest width in pixels: a page of twenty arms stays a few megabytes."""


@dataclass(frozen=True)
class EmbeddedImage:
    """A title, a data URI and an alternative text."""

    title: str
    uri: str
    alt: str


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def prediction_images(analysis: SweepAnalysis) -> tuple[list[EmbeddedImage], list[str]]:
    """Return the predictions of one seed, one picture per arm, and the arms without any.

    The seed is the one that most arms have a picture of, so that all show the same images.
    """
    paths = [
        {seed: path for seed, run in runs.items() if (path := run.folder / PREDICTIONS).is_file()}
        for runs in analysis.runs
    ]
    seeds = sorted({seed for by_seed in paths for seed in by_seed})
    seed = max(seeds, key=lambda s: (sum(s in by_seed for by_seed in paths), -s), default=None)
    pictures, missing = [], []
    for arm, by_seed in zip(analysis.arms, paths, strict=True):
        uri = downscaled_uri(by_seed[seed]) if seed in by_seed else None
        if uri is None:
            missing.append(arm.label)
        else:
            alt = f"image, truth and prediction of {arm.label}, seed {seed}"
            pictures.append(EmbeddedImage(f"{arm.label}, seed {seed}", uri, alt))
    return pictures, missing


def downscaled_uri(path: Path) -> str | None:
    """Return a downscaled picture; None if the file cannot be read."""
    try:
        with Image.open(path) as stored:
            picture = stored.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return None
    picture.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(128).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
