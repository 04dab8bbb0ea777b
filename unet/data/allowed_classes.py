"""The classes that a config which comes with a checkpoint may instantiate."""

import pydoc
from collections.abc import Iterator, Mapping
from typing import Any

import albumentations as A
from omegaconf import OmegaConf

from unet.data.module import SegmentationData
from unet.data.source import Source
from unet.errors import UserError

BUILDABLE = (SegmentationData, Source, A.BasicTransform, A.BaseCompose)


def check_targets(config: Any) -> None:
    """Check that a config instantiates only data sets of this project and transforms of albumentations.

    Raises:
        UserError: a ``_target_`` at any depth is none of these; it is not called.
    """
    for target in targets(OmegaConf.to_container(config, resolve=True)):
        # Other packages are not even imported.
        target_class = pydoc.locate(target) if target.startswith(("unet.data.", "albumentations.")) else None
        if not (isinstance(target_class, type) and issubclass(target_class, BUILDABLE)):
            raise UserError(
                f"_target_={target}: expected a data set of unet.data or a transform of albumentations; for security, "
                f"a run's config may name nothing else"
            )


def targets(settings: Any) -> Iterator[str]:
    """Yield every ``_target_`` of nested settings."""
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            yield str(settings["_target_"])
        settings = list(settings.values())
    if isinstance(settings, list):
        for entry in settings:
            yield from targets(entry)
