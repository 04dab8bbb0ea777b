"""Embed images in the page as data URIs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unet.report.analysis import SweepAnalysis
from unet.report.arms import format_replicate, sort_replicates

PREDICTIONS = "predictions.png"
MAX_WIDTH = 640
"""Pixels; a page with twenty arms has a few megabytes."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a data URI, with a title and an alternative text."""

    title: str
    uri: str
    alt: str


def data_uri(content: bytes, media_type: str) -> str:
    """Return a file's contents as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def prediction_images(analysis: SweepAnalysis) -> tuple[list[EmbeddedImage], list[str]]:
    """Return the predictions of every arm of the seed that most arms have, and the labels of the arms without.

    All images show the same items because they share the seed.
    """
    paths = [
        {seed: path for seed, run in runs.items() if (path := run.folder / PREDICTIONS).is_file()}
        for runs in analysis.runs
    ]
    seeds = sort_replicates({seed for by_seed in paths for seed in by_seed})
    seed = max(seeds, key=lambda s: sum(s in by_seed for by_seed in paths), default=None)
    title = format_replicate(seed) if isinstance(seed, tuple) else f"seed {seed}"
    images, missing = [], []
    for arm, by_seed in zip(analysis.arms, paths, strict=True):
        uri = downscaled_uri(by_seed[seed]) if seed in by_seed else None
        if uri is None:
            missing.append(arm.label)
        else:
            alt = f"image, truth and prediction of {arm.label}, {title}"
            images.append(EmbeddedImage(f"{arm.label}, {title}", uri, alt))
    return images, missing


def downscaled_uri(path: Path) -> str | None:
    """Return a downscaled image as a data URI; None if the file cannot be read."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except OSError:
        return None
    image.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(128).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
