"""The data of a sweep, read once: by the process from which the processes of its jobs are forked."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.data import SegmentationData
from unet.diagnostics.histogram_baseline import baseline_scores
from unet.training.build import build_data

_shared: dict[str, Any] = {}
"""The ``settings`` (section ``data`` of a config), the ``data`` that was read with them, and its ``baseline``."""


def read_shared_data(settings: Mapping[str, Any]) -> None:
    """Read the data of a config's section ``data``, for the processes that are forked from this one.

    Data that cannot be read is not shared, so that the job reports the error.
    """
    if _shared.get("settings") == settings:
        return
    _shared.clear()  # first, so that the memory suffices for the new data
    with suppress(Exception):
        data = build_data(OmegaConf.create({"data": dict(settings), "seed": 0}))
        data.read()
        _shared.update(settings=settings, data=data)
        _shared.update(baseline=baseline_scores(data))


def get_data(config: DictConfig) -> SegmentationData:
    """Return the data module of a config: the shared one, which is read already, or else a new one."""
    if _shared and _shared["settings"] == OmegaConf.to_container(config.data, resolve=True):
        _shared["data"].seed = config.seed
        return _shared["data"]
    return build_data(config)


def get_baseline(data: SegmentationData) -> dict[str, float]:
    """Return the scores of the colour histogram as ``baseline/...``, those of shared data computed once."""
    is_shared = _shared.get("data") is data and "baseline" in _shared
    scores = _shared["baseline"] if is_shared else baseline_scores(data)
    return {f"baseline/{name}": value for name, value in scores.items() if name == "miou" or name.startswith("iou/")}
