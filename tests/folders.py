"""Small data sets on disk for tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet.data import SegmentationData
from unet.data.folder import Folder
from unet.data.source import Item

CLASSES = ["background", "cell"]
LISTS = {"train": "train.txt", "val": "val.txt"}


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(*shape: int, below: int = 256, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape).astype(dtype)


def folder_of(root: Path, stems: list[str], size: tuple[int, int] = (12, 10), classes: int = 2) -> Path:
    """Write RGB images and masks of labels."""
    for seed, stem in enumerate(stems):
        save(root / "images" / f"{stem}.png", noise(*size, 3, seed=seed))
        save(root / "masks" / f"{stem}.png", noise(*size, below=classes, seed=seed))
    return root


def scanned(root: Path, **options) -> SegmentationData:
    source = Folder(str(root), **{"classes": CLASSES, "splits": LISTS, **options})
    data = SegmentationData(source, seed=0, batch_size=2, eval_batch_size=1)
    data.scan()
    return data


def sentence(error: pytest.ExceptionInfo, *words: str) -> str:
    """Return the message after checking that it is one line with ``words``."""
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message
    return message


def names(items: list[Item]) -> list[str]:
    return [Path(item.name).stem for item in items]


def swap(path: Path, pixels: np.ndarray, suffix: str = "") -> None:
    path.unlink()
    save(path.with_suffix(suffix or path.suffix), pixels)
