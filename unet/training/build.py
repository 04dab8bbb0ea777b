"""The objects of a run, built from its config: data module, task, trainer."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    RichProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from unet.analysis.width_matching import match_width
from unet.data import SegmentationData
from unet.data.dataset import transforms_for_dims
from unet.errors import UserError
from unet.hardware import accelerator_name, channels_last, resolve_precision, to_memory_format
from unet.io.run_folder import CHECKPOINTS
from unet.network.model import UNet
from unet.network.normalization import Normalize
from unet.task.losses import class_weights, log_weights, make_loss
from unet.task.module import SegmentationTask
from unet.training.callbacks.checkpoint import (
    AtomicCheckpointIO,
    SaveOnError,
    StopOnSignal,
    ValidateLast,
    best_and_last,
)
from unet.training.callbacks.compile import Compile
from unet.training.callbacks.ema import MovingAverage
from unet.training.callbacks.progress import Progress
from unet.training.callbacks.tensorboard import (
    Charts,
    ClassShares,
    FeatureMaps,
    Graph,
    Pictures,
    PrecisionRecall,
)

NON_DATAMODULE_KEYS = ("name", "root", "crop", "class_weights")
"""Keys of ``data`` that others read, or other keys refer to."""


def build_data(config: DictConfig) -> SegmentationData:
    """The data module; a misspelt augmentation argument, which albumentations only warns about, is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="albumentations")
        warnings.filterwarnings("error", message=".*are not valid for transform.*")
        try:
            settings: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
            named = {key: value for key, value in settings.items() if key not in NON_DATAMODULE_KEYS}
            return instantiate(named, seed=config.seed, _convert_="all")
        except Exception as error:
            cause = error.__cause__ or error
            raise UserError(f"data={config.data.name}: {' '.join(str(cause).split())}") from error


def build_task(config: DictConfig, data: SegmentationData) -> SegmentationTask:
    """The network for this data, with loss and optimisation."""
    return task_from_metadata(config, data, checkpoint_metadata(config, data))


def network_settings(config: DictConfig, data: SegmentationData, in_channels: int) -> dict[str, Any]:
    """Return the arguments of ``UNet`` for this data, and ``match``."""
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    axes = data.source.spatial_dims
    if model["spatial_dims"] not in (None, axes):
        raise UserError(
            f"model.spatial_dims={model['spatial_dims']}: data={config.data.name} has {axes} "
            f"spatial axes; leave the key out, it follows from the data"
        )
    return model | {"in_channels": in_channels, "num_classes": data.source.num_classes, "spatial_dims": axes}


def check_network(config: DictConfig, data: SegmentationData) -> None:
    """Build the network without memory, so that a wrong name or option is refused before the data set is read."""
    settings = network_settings(config, data, in_channels=3)  # how many there are is known once the images are read
    with torch.device("meta"):
        UNet(**{key: value for key, value in settings.items() if key != "match"})


def checkpoint_metadata(config: DictConfig, data: SegmentationData) -> dict[str, Any]:
    """What every checkpoint says of itself, in plain values: network, classes, preprocessing, evaluation."""
    model = match_width(network_settings(config, data, data.channels), data.example("train").shape[2:])
    mean, std = data.samples["train"].statistics()
    choice: dict[str, Any] = OmegaConf.to_container(config.loss, resolve=True)  # type: ignore[assignment]
    weights = class_weights(choice["class_weights"], data.samples["train"].label_counts)
    transforms: Any = OmegaConf.to_container(config.data.eval_transforms, resolve=True)
    return {
        "model": model,
        "classes": list(data.source.classes),
        "colors": [list(color) for color in data.source.colors],
        "mean": mean,
        "std": std,
        "dtype": str(data.samples["train"].dtype),
        "range": list(data.samples["train"].range),
        "class_weights": weights,
        "log_weights": log_weights(weights) if choice["logit_adjustment"] else None,
        "eval_transforms": transforms_for_dims(transforms, data.source.spatial_dims),
        "eval_tile": data.eval_tile and list(data.eval_tile),
        "eval_overlap": data.eval_overlap,
    }


def task_from_metadata(
    config: DictConfig, data: SegmentationData, description: Mapping[str, Any], network: UNet | None = None
) -> SegmentationTask:
    """Return the task of a description, with a new network unless one is given.

    Loss and optimisation are the config's, and how evaluation sees an image.
    """
    return SegmentationTask(
        to_memory_format(network or UNet(**description["model"]), channels_last),
        Normalize(description["mean"], description["std"], data.source.spatial_dims),
        make_loss(config.loss.name, description["class_weights"]),
        description["classes"],
        OmegaConf.to_container(config.optim, resolve=True),  # type: ignore[arg-type]
        description,
        config.seed,
        data.eval_tile,
        data.eval_overlap,
        description["log_weights"],
    )


def build_trainer(config: DictConfig, out: Path, progress: Progress, sizes: Sequence[tuple[int, ...]]) -> L.Trainer:
    """Lightning's trainer with the callbacks every run has; ``sizes`` are those of the maps it will train on."""
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    settings["precision"] = resolve_precision(settings["precision"], accelerator_name(settings["accelerator"]), sizes)
    folder = out / CHECKPOINTS
    callbacks: list[Callback] = [
        progress,
        Charts(),
        ClassShares(),
        Pictures(config.num_logged_images),
        FeatureMaps(config.feature_maps),
        PrecisionRecall(),
        Graph(),
        LearningRateMonitor("step"),
    ]
    if config.compile:
        callbacks.append(Compile())
    if config.ema is not None:
        callbacks.append(MovingAverage(decay=config.ema))
    # After the average, so that what is saved holds the step that has just been made.
    last_step = SaveOnError(folder)
    callbacks += [ValidateLast(), last_step, StopOnSignal(last_step), *best_and_last(folder, "val/miou")]
    if config.early_stopping is not None:
        callbacks.append(EarlyStopping("val/miou", mode="max", patience=config.early_stopping))
    if settings["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = Console().is_terminal
    if settings["enable_progress_bar"]:
        callbacks.append(RichProgressBar(leave=False))
    plugins = [AtomicCheckpointIO(), *(settings.pop("plugins") or [])]
    logger = TensorBoardLogger(out, name="", version="", default_hp_metric=False)
    return trainer_of(
        **settings,
        default_root_dir=out,
        logger=logger,
        callbacks=callbacks,
        plugins=plugins,
        use_distributed_sampler=False,  # the sampler knows its rank
        enable_autolog_hparams=False,  # logged once, at the end, with the results
    )


def trainer_of(**settings: Any) -> L.Trainer:
    """Lightning's trainer. Raises UserError where it refuses the settings."""
    try:
        return L.Trainer(**settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: Lightning refuses its settings: {' '.join(str(error).split())}") from error
