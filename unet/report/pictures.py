"""Pictures inside the page: as data URIs, and the predictions of every arm beside each other."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unet.report.study import SweepAnalysis

PREDICTIONS = "predictions.png"
WIDTH = 640
"""Pixels across, at most: sharp on a phone, and a page of twenty arms stays a few megabytes."""


@dataclass(frozen=True)
class Picture:
    """Attributes: a heading, a data URI, and what a reader who cannot see it is told."""

    title: str
    uri: str
    alt: str


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def crop_pictures(analysis: SweepAnalysis) -> tuple[list[Picture], list[str]]:
    """The predictions of one seed, an arm each, small; and the arms that left none.

    The seed is the one that most arms have a picture of, so that the rows show the same samples.
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
            pictures.append(Picture(f"{arm.label}, seed {seed}", uri, alt))
    return pictures, missing


def downscaled_uri(path: Path) -> str | None:
    """A picture, downscaled; None where the file holds none."""
    try:
        with Image.open(path) as stored:
            picture = stored.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return None
    picture.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(128).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
