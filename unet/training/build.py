"""Build the objects of a run from its config: data module, task, trainer."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, LearningRateMonitor, RichProgressBar
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from unet.analysis.width_matching import match_width
from unet.data import SegmentationData
from unet.data.dataset import transforms_for_dims
from unet.data.samples import Samples, evenly_spaced
from unet.data_check.advice import check_advice
from unet.errors import UserError
from unet.hardware import accelerator_name, channels_last, resolve_compile, resolve_precision, to_memory_format
from unet.io.plugins import loaded_plugins
from unet.io.run_folder import CHECKPOINTS
from unet.network.encoders import split_encoder
from unet.network.model import UNet
from unet.network.normalization import Normalize
from unet.task.class_weights import class_weights, log_weights
from unet.task.losses import make_loss
from unet.task.module import SegmentationTask
from unet.training.callbacks import checkpoint, tensorboard
from unet.training.callbacks.ema import MovingAverage
from unet.training.callbacks.progress import Progress
from unet.training.callbacks.pruning import MedianPruning
from unet.training.file_headers import declared_nodata, volume_grid
from unet.training.loggers import make_loggers
from unet.training.seeded_network import build_network


def build_data(config: DictConfig) -> SegmentationData:
    """Build the data module. An invalid argument of a transform, for which albumentations warns, is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="albumentations")
        warnings.filterwarnings("error", message=".*are not valid for transform.*")
        try:
            settings: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
            for key in ("name", "root", "crop", "class_weights"):  # no arguments of the data module
                settings.pop(key, None)
            return instantiate(settings, seed=config.seed, _convert_="all")
        except Exception as error:
            cause = error.__cause__ or error
            raise UserError(f"data={config.data.name}: {' '.join(str(cause).split())}") from error


def build_task(config: DictConfig, data: SegmentationData) -> SegmentationTask:
    """Build the network for a data set, with loss and optimizer."""
    return task_from_metadata(config, data, checkpoint_metadata(config, data))


def network_settings(config: DictConfig, data: SegmentationData, in_channels: int) -> dict[str, Any]:
    """Return ``match`` and the arguments of ``UNet`` for a data set."""
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    with check_advice(data, config):
        axes = data.source.spatial_dims
    if model["spatial_dims"] not in (None, axes):
        raise UserError(
            f"model.spatial_dims={model['spatial_dims']}: data={config.data.name} has {axes} "
            f"spatial axes; leave the key out"
        )
    model["encoder"], _ = split_encoder(model["encoder"])
    return model | {"in_channels": in_channels, "num_classes": data.source.num_classes, "spatial_dims": axes}


def check_network(config: DictConfig, data: SegmentationData) -> UNet:
    """Return the network on the meta device, so that an invalid name or option is refused before the data is read."""
    settings = network_settings(config, data, in_channels=3)  # the number of channels is known once images are read
    settings.pop("match", None)
    with torch.device("meta"):
        return UNet(**settings)


def checkpoint_metadata(config: DictConfig, data: SegmentationData) -> dict[str, Any]:
    """Return the description that checkpoints hold, in plain values: network, classes, preprocessing, evaluation."""
    model = match_width(network_settings(config, data, data.channels), data.example("train").shape[2:])
    mean, std = data.samples["train"].statistics()
    loss: dict[str, Any] = OmegaConf.to_container(config.loss, resolve=True)  # type: ignore[assignment]
    weights = class_weights(loss["class_weights"], data.samples["train"].label_counts)
    reading = asdict(data.source.read_options)
    if reading["nodata"] is None and reading["declared_nodata"]:  # images to predict may not declare it
        reading["nodata"] = declared_nodata(data.samples["train"])[0]
    transforms: Any = OmegaConf.to_container(config.data.eval_transforms, resolve=True)
    return {
        "model": model,
        "classes": list(data.source.classes),
        "colors": [list(color) for color in data.source.colors],
        "mean": mean,
        "std": std,
        "reading": reading,
        **volume_grid(data.samples["train"]),
        "gamma": float(data.source.gamma),
        "dtype": str(data.samples["train"].dtype),
        "range": list(data.samples["train"].range),
        "smallest_maximum": data.samples["train"].smallest_maximum,
        "channel_names": list(data.source.channels),
        "channel_file": data.source.channel_file,
        "color_order": "RGB",
        "orientation": "as stored",  # the EXIF orientation is not applied
        "first_minus_last_channel": channel_difference(data.samples["train"], max(std)),
        "class_weights": weights,
        "log_weights": log_weights(weights) if loss["logit_adjustment"] else None,
        "plugins": loaded_plugins(),
        "eval_transforms": transforms_for_dims(transforms, data.source.spatial_dims),
        "eval_tile": data.eval_tile and list(data.eval_tile),
        "eval_overlap": data.eval_overlap,
    }


def channel_difference(samples: Samples, deviation: float, least: int = 5, most: int = 64) -> float | None:
    """Return by how much the mean of the first channel of an image exceeds that of the last, on average.

    Prediction recognises swapped channels by it. None unless the images have three channels, there are at least
    ``least``, and the difference is clear: three times its deviation over the images, and a tenth of ``deviation``,
    that of the pixels.
    """
    if samples.channels != 3 or len(samples) < least:
        return None
    images = [samples[index][0] for index in evenly_spaced(len(samples), most)]
    complete = (image.reshape(-1, 3) for image in images)
    complete = [pixels for pixels in complete if not np.isnan(pixels).all(0).any()]
    if len(complete) < least:
        return None
    differences = np.array([np.subtract(*np.nanmean(pixels[:, ::2], 0, dtype=float)) for pixels in complete])
    mean = differences.mean().item()
    return mean if abs(mean) > max(3 * differences.std(ddof=1), deviation / 10) else None


def task_from_metadata(
    config: DictConfig, data: SegmentationData, description: Mapping[str, Any], network: UNet | None = None
) -> SegmentationTask:
    """Return the task of a checkpoint's description, with a new network if None.

    Loss, optimizer and evaluation tiles are those of the config.
    """
    return SegmentationTask(
        to_memory_format(network or build_network(description["model"], config.seed), channels_last),
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
    """Build Lightning's trainer with its callbacks; ``sizes``: sizes of the feature maps of a training image."""
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    settings["precision"] = resolve_precision(settings["precision"], accelerator_name(settings["accelerator"]), sizes)
    folder = out / CHECKPOINTS
    callbacks: list[Callback] = [
        progress,
        tensorboard.Charts(),
        tensorboard.ClassShares(),
        tensorboard.PredictionImages(config.num_logged_images),
        tensorboard.FeatureMaps(config.feature_maps),
        tensorboard.PrecisionRecall(),
        tensorboard.Graph(),
        LearningRateMonitor("step"),
    ]
    callbacks.append(LambdaCallback(on_train_start=partial(compile_network, config.compile)))
    if config.ema is not None:
        callbacks.append(MovingAverage(decay=config.ema))
    # After the moving average, so that checkpoints contain its latest update.
    save_on_error = checkpoint.SaveOnError(folder)
    callbacks += [checkpoint.ValidateLast(), save_on_error, checkpoint.StopOnSignal(save_on_error)]
    callbacks += checkpoint.best_and_last(folder, "val/miou")
    if config.early_stopping is not None:
        callbacks.append(EarlyStopping("val/miou", mode="max", patience=config.early_stopping))
    if settings["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = Console().is_terminal
    if settings["enable_progress_bar"]:
        callbacks.append(RichProgressBar(leave=False))
    if config.prune:
        callbacks.append(MedianPruning(out))
    callbacks += make_callbacks(settings.pop("callbacks"))
    plugins = [checkpoint.AtomicCheckpointIO(), *(settings.pop("plugins") or [])]
    return make_trainer(
        **settings,
        default_root_dir=out,
        logger=make_loggers(config.logger, out),
        callbacks=callbacks,
        plugins=plugins,
        use_distributed_sampler=False,  # the sampler distributes the items itself
        enable_autolog_hparams=False,  # logged at the end, with the metrics
    )


def compile_network(requested: bool | str, trainer: L.Trainer, task: L.LightningModule) -> None:
    """Compile the network, if :func:`resolve_compile` says so, for the rest of the training.

    This comes after :class:`tensorboard.Graph`, because torch.jit traces no compiled network.
    """
    steps = trainer.estimated_stepping_batches - trainer.global_step
    if resolve_compile(requested, task.device.type, steps):
        net: Any = task.net
        net.compile()


LAUNCHERS = {"MASTER_ADDR", "NODE_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE"}
"""Variables that launchers of several nodes set, any of which Lightning needs."""


def check_trainer(config: DictConfig) -> None:
    """Raise UserError where Lightning refuses a setting of the trainer, before the data is read."""
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    settings["precision"] = None if settings["precision"] == "auto" else settings["precision"]
    if settings["num_nodes"] > 1 and not LAUNCHERS & set(os.environ):
        raise UserError(
            f"trainer.num_nodes={settings['num_nodes']}: the other nodes would be waited for without end; start every "
            f"node with torchrun or srun, or set MASTER_ADDR and NODE_RANK, or leave the key out"
        )
    settings["callbacks"] = make_callbacks(settings["callbacks"])
    make_trainer(**settings, logger=False, use_distributed_sampler=False)


def make_callbacks(configs: Sequence[Any] | None) -> list[Callback]:
    """Return the callbacks of ``trainer.callbacks``. Raises UserError where one cannot be made."""
    callbacks = []
    for number, settings in enumerate(configs or []):
        key = f"trainer.callbacks[{number}]"
        try:
            callback = instantiate(settings, _convert_="all") if isinstance(settings, dict) else None
        except Exception as error:  # the code of a user may raise any
            raise UserError(f"{key}: {' '.join(str(error.__cause__ or error).split())}") from error
        if not isinstance(callback, Callback):
            raise UserError(f"{key}: expected {{_target_: a callback of Lightning}}, found {settings!r}")
        callbacks.append(callback)
    return callbacks


def make_trainer(**settings: Any) -> L.Trainer:
    """Return Lightning's trainer. Raises UserError if Lightning refuses a setting."""
    try:
        return L.Trainer(**settings)
    except (MisconfigurationException, RuntimeError, ValueError, TypeError, ImportError) as error:
        raise UserError(f"trainer: Lightning refuses the settings: {' '.join(str(error).split())}") from error
