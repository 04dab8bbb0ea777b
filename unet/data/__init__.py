"""Data sets, their checks, their loaders."""

import os

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # before the import: it would ask the network for a newer version

from unet.data.module import SegmentationData
from unet.data.source import SPLITS, Item, Source

__all__ = ["SPLITS", "Item", "SegmentationData", "Source"]
