"""Data sets, their checks, their loaders."""

import os

# Before the import of albumentations, which would ask the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from unet.data.module import SegmentationData
from unet.data.source import SPLITS, Item, Source

__all__ = ["SPLITS", "Item", "SegmentationData", "Source"]
