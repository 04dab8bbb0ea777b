"""Evaluate a checkpoint on any split of any data set, as at the end of its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from unet.data import SegmentationData
from unet.data.allowed_classes import check_targets
from unet.data.folder import Folder
from unet.data.module import shutdown_workers_on_exit
from unet.data.samples import MAX_STATISTICS, Samples, evenly_spaced
from unet.data.source import ALL
from unet.data_check.advice import scan_data
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.confusions import save_confusions
from unet.errors import UserError, did_you_mean
from unet.hardware import accelerator_name, resolve_precision
from unet.inference.checkpoint import from_checkpoint, load, read_checkpoint
from unet.inference.value_check import unit_doubts
from unet.io.atomic import make_folder, write_json
from unet.io.config_keys import CONFIGS, all_keys
from unet.io.provenance import provenance
from unet.io.run_folder import CONFIG, CONFUSIONS, METRICS, load_run_config
from unet.network.geometry import level_sizes
from unet.network.model import UNet
from unet.runs.run_names import parse
from unet.task.class_weights import class_weights
from unet.task.module import SegmentationTask
from unet.training.build import build_data, make_trainer, task_from_metadata
from unet.training.data_warnings import image_warnings
from unet.training.initial_weights import DIVISION
from unet.training.process import setup_process
from unet.training.train import evaluate

TRAINER = ("accelerator", "deterministic", "benchmark", "inference_mode", "limit_val_batches", "limit_test_batches")
"""The settings of the trainer, besides the precision, that an evaluation uses."""

REQUIRED_KEYS = (
    *("seed", "threads", "loss", "data._target_", "data.source"),
    *(f"trainer.{key}" for key in ("precision", *TRAINER)),
)
"""Keys of a run's config that an evaluation uses."""


@dataclass(frozen=True)
class EvaluationResult:
    """The content of ``metrics.json`` (scores, diagnostics, provenance), and the diagnostics among it.

    ``warning`` says if the network was trained on the images, ``doubts`` why the images are unlike the training images,
    or unlike each other.
    """

    metrics: dict[str, Any]
    diagnostics: dict[str, float]
    split: str
    classes: list[str]
    warning: str
    doubts: list[str]


def evaluate_checkpoint(
    path: Path | Sequence[Path],
    overrides: Sequence[str] = (),
    split: str | None = None,
    out: Path | None = None,
    with_diagnostics: bool = True,
) -> EvaluationResult:
    """Evaluate the network of a checkpoint, or the mean of the probabilities of several.

    Args:
        path: the checkpoint; of several, the first gives the config of its run.
        overrides: changes to its run's config, such as ``data.root=...``; ``data=NAME`` selects another data set.
        split: ``train``, ``val`` or ``test``, or ``all`` for all images without a division; None: ``all`` if
            the overrides name another folder (``data.root``) of ``data=folder``, else that of the training.
        out: the folder for ``metrics.json`` and ``confusions.npz``; None: nothing is written.

    Raises:
        UserError: the checkpoint, the data or the split is missing, the classes are not the network's, or the folder
            contains metrics already or cannot be written to.
    """
    if out is not None:
        if (out / METRICS).exists():
            raise UserError(f"{out / METRICS}: the file exists already; choose another output")
        make_folder(out, "output")
    paths = [path] if isinstance(path, Path) else list(path)
    path = paths[0]
    checkpoint = read_checkpoint(path)
    model = from_checkpoint(checkpoint, path) if len(paths) == 1 else load(paths)
    network, checkpoint["description"] = model.net, model.description
    config = evaluation_config(path, overrides)
    setup_process(config)
    data = build_data(config)
    keys = {override.partition("=")[0] for override in overrides}
    if split is None and isinstance(data.source, Folder) and keys & {"data", "data.root"}:
        split = ALL
    if split == ALL:
        data.use_all_items()
    scan_data(data, config)
    task = evaluation_task(path, checkpoint, network, config, data)
    split = split or data.eval_split
    if split not in data.samples:
        valid = [*data.samples, ALL]
        raise UserError(
            f"split={split}: the data has no such split{did_you_mean(str(split), valid)} (valid: {', '.join(valid)})"
        )
    warning = ""
    if split == ALL and has_training_images(path, config, data, task.description):
        warning = "the network was trained on some of these images, so the metrics are too high; add split=test"
    elif trained_on_other_splits(paths, split) and has_training_images(path, config, data, task.description):
        warning = (
            "the networks were trained on different images, some on images of this split: the metrics are too high"
        )
    trainer = evaluation_trainer(config, network, data, split)
    if config.get("compile") is True:
        network.compile()
    with shutdown_workers_on_exit():
        scores = evaluate(trainer, task, data, split)
    diagnostics: dict[str, float] = {}
    if with_diagnostics:
        from unet.diagnostics.diagnose import diagnose  # imports SciPy and scikit-image

        diagnostics = diagnose(task, data, split)
    progress = {}
    if len(paths) == 1 and {"epoch", "global_step"} <= checkpoint.keys():  # else it holds only the network
        progress = {"checkpoint/epoch": checkpoint["epoch"] + 1, "checkpoint/step": checkpoint["global_step"]}
    metrics = {
        **diagnostics,
        **scores,
        "checkpoint": ", ".join(map(str, paths)),
        **progress,
        "split": split,
        "data": config.data.name,
        "precision": str(trainer.precision),
        **provenance(),
    }
    if out is not None:
        write_json(out / METRICS, metrics)
        with skip_on_error(CONFUSIONS):
            save_confusions(out / CONFUSIONS, task, data, split)
    diagnostics = {name: value for name, value in diagnostics.items() if name not in scores}
    samples = data.samples[split]
    doubts = unit_doubts(getattr(torch, str(samples.dtype)), *samples.range, checkpoint["description"])
    doubts += image_warnings([samples])
    return EvaluationResult(metrics, diagnostics, split, list(task.classes), warning, doubts)


def has_training_images(path: Path, config: DictConfig, data: SegmentationData, description: dict[str, Any]) -> bool:
    """Return whether the data set is that of a checkpoint's training, also if its folder was copied or moved.

    A copy is recognized by the mean and standard deviation of the images in its training split.
    """
    folder = path.resolve().parent.parent
    if (folder / CONFIG).is_file() and load_run_config(folder).data.source == config.data.source:
        return True
    try:
        items = data.source.load_splits()["train"]
    except UserError:  # it cannot be divided as the training's was
        return False
    items = [items[index] for index in evenly_spaced(len(items), MAX_STATISTICS)]
    mean, std = Samples(items, data.source.num_classes, data.source.spatial_dims, 0, "train").statistics()
    return bool(np.allclose([mean, std], [description["mean"], description["std"]], rtol=1e-6, atol=0))


def trained_on_other_splits(paths: Sequence[Path], split: str) -> bool:
    """Return whether the runs of checkpoints divided their images in different ways; all folds have one test split."""
    folders = [path.resolve().parent.parent for path in paths]
    sources = [load_run_config(folder).data.source for folder in folders if (folder / CONFIG).is_file()]
    keys = [key for key in DIVISION if key != "fold" or split != "test"]
    divisions = [[source.get(key, DIVISION[key]) for key in keys] for source in sources]
    return any(division != divisions[0] for division in divisions)


def evaluation_config(path: Path, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a checkpoint's run, two folders above it, with overrides.

    ``data=NAME`` replaces its data by another data set; it is required without a config of the run.
    """
    folder = path.resolve().parent.parent
    changes = list(overrides)
    if any(override.startswith("data=") for override in overrides):
        of_data = [override for override in overrides if override.startswith(("data=", "data."))]
        changes = [override for override in overrides if override not in of_data]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = compose("train", of_data)
        OmegaConf.resolve(composed)
        config = load_run_config(folder) if (folder / CONFIG).is_file() else composed
        config.data = composed.data
    elif (folder / CONFIG).is_file():
        config = load_run_config(folder)
    else:
        raise UserError(
            f"{folder / CONFIG}: no such file, so the data set of {path.name} is unknown; add data=NAME and "
            f"data.root=PATH"
        )
    missing = next((key for key in REQUIRED_KEYS if OmegaConf.select(config, key, default=Ellipsis) is Ellipsis), None)
    if missing is not None:
        raise UserError(f"{folder / CONFIG}: no key {missing}; expected the config of a training")
    check_targets(config.data)  # the file may come from someone else
    for override in parse(changes, None):
        key = override.key_or_group
        if key not in all_keys(config):
            raise UserError(f"{key}: no such key in the run's config{did_you_mean(key, all_keys(config))}")
        value = override.value()
        if key == "data.root" and config.data.source.get("root") == config.data.root:
            config.data.source.root = value  # the config of a run has no references
        OmegaConf.update(config, key, value)
    config.data.batch_size, config.data.samples_per_epoch = 1, None  # the data may be fewer than a training batch
    return config


def evaluation_task(
    path: Path, checkpoint: dict[str, Any], network: UNet, config: DictConfig, data: SegmentationData
) -> SegmentationTask:
    """Return the task of a checkpoint's network. Raises UserError if its classes or channels are not the data's."""
    description = {"log_weights": None, **checkpoint["description"]}
    model = description["model"]
    if list(data.source.classes) != description["classes"]:
        raise UserError(
            f"data={config.data.name} has the classes {', '.join(data.source.classes)}, but {path} was trained for "
            f"{', '.join(description['classes'])}; they must be the same, in the same order"
        )
    channels, axes = data.channels, data.source.spatial_dims
    if (channels, axes) != (model["in_channels"], model["spatial_dims"]):
        raise UserError(
            f"data={config.data.name}: images of {channels} channels and {axes} axes, but {path} was trained on "
            f"{model['in_channels']} channels and {model['spatial_dims']} axes"
        )
    if "class_weights" not in description:  # an older checkpoint: compute them from the training data
        loss: Any = OmegaConf.to_container(config.loss, resolve=True)
        counts = next(iter(data.samples.values())).label_counts
        weights = class_weights(loss.get("class_weights", "none"), counts)
        description["class_weights"] = weights
    return task_from_metadata(config, data, description, network)


def evaluation_trainer(config: DictConfig, network: UNet, data: SegmentationData, split: str) -> L.Trainer:
    """Return a trainer that evaluates as the run's own did, on one device, and writes nothing."""
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    sizes = level_sizes(data.example(split).shape[2:], network.strides)
    precision: Any = resolve_precision(settings["precision"], accelerator_name(settings["accelerator"]), sizes)
    return make_trainer(
        **{key: settings[key] for key in TRAINER},
        precision=precision,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
