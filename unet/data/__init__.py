"""Data sets, samples, augmentation and loaders.

The names are imported on first use, so that reading a file needs neither Lightning nor albumentations.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet.data.module import SegmentationData
    from unet.data.source import SPLITS, Item, Source

# Set before albumentations is imported, which otherwise looks for a newer version on the internet.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__all__ = ["SPLITS", "Item", "SegmentationData", "Source"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unet.data' has no attribute {name!r}")
    return getattr(import_module(f"unet.data.{'module' if name == 'SegmentationData' else 'source'}"), name)
