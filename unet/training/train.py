"""A run, from a composed config to numbers: build, fit, evaluate once, leave everything in one folder."""

import logging
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
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

from unet.analysis.network_summary import Anatomy, anatomy, facts, markdown
from unet.analysis.width_matching import match_width
from unet.data import SegmentationData
from unet.data.dataset import for_axes
from unet.diagnostics import diagnose
from unet.errors import UserError
from unet.hardware import accelerator_name, channels_last, device_name, lay, resolve_precision
from unet.inference.segmenter import Normalize, read_checkpoint
from unet.io.run_folder import (
    CHECKPOINTS,
    METRICS,
    flatten,
    is_runtime_key,
    peak_memory_bytes,
    provenance,
    reset_peak_memory,
    whole,
    write_json,
)
from unet.network.model import UNet
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
    add_curves,
    predict_panels,
    writer_of,
)
from unet.training.config_limits import check_limits
from unet.training.console import print_result, print_summary
from unet.visualization import sheet

NOT_THE_MODULES = ("name", "root", "crop", "class_weights")
"""Keys of ``data`` that others read, or other keys refer to."""

THREADS = torch.get_num_threads()
"""What torch chose for this machine."""


def train(config: DictConfig, out: Path) -> dict[str, Any]:
    """Run ``config`` in the folder ``out``, which is this run's own, and return what ``metrics.json`` holds.

    Raises:
        UserError: the config, the data or the training cannot go on, in one sentence.
        Interrupted: a signal stopped it; ``last.ckpt`` is saved.
    """
    settle_process(config)
    data = build_data(config)
    check_network(config, data)
    data.scan()
    description = plain_description(config, data)
    found = describe(description["model"], data)  # refuses too large a network before its memory is asked for
    task = task_of(config, data, description | {"field": list(found.fields.logits)})
    progress = Progress()
    trainer = build_trainer(config, out, progress, [stage.size for stage in found.stages])
    if trainer.is_global_zero:
        device = device_name(accelerator_name(config.trainer.accelerator))
        print_summary(task, data, found, trainer.precision, device)
    writer = writer_of(trainer)
    if writer is not None:
        writer.add_text("network", markdown(found), 0)

    begin = time.perf_counter()
    # Every key of the checkpoint is a plain value or a tensor: nothing in it is ever executed.
    trainer.fit(task, data, ckpt_path=config.ckpt_path, weights_only=True)
    seconds = time.perf_counter() - begin

    best = load_best(task, out)
    scores = evaluate(trainer, task, data)
    metrics = {
        **scores,
        **{name: float(value) for name, value in best.items()},
        **facts(found),
        "time/train_seconds": progress.earlier + seconds,
        "time/samples_per_second": progress.samples_per_second,
        "memory/peak_bytes": torch.cuda.max_memory_allocated() if task.device.type == "cuda" else peak_memory_bytes(),
        "steps": trainer.global_step,
        "seed": config.seed,
        "data": config.data.name,
        "precision": str(trainer.precision),
        **provenance(),
    }
    if not trainer.is_global_zero:  # one process writes; nothing it does from here on waits for the others
        return metrics
    write_json(out / METRICS, metrics)  # before anything else is tried: the scores are safe now
    leave_pictures(task, data, out, config.pictures)
    if config.diagnostics:
        begin = time.perf_counter()
        diagnosed = diagnose(task, data, data.eval_split, out)
        metrics |= {**diagnosed, "time/diagnostics_seconds": time.perf_counter() - begin}
        write_json(out / METRICS, metrics)
        if writer is not None:
            add_curves(writer, diagnosed, trainer.global_step)
    leave_hparams(trainer, config, metrics)
    print_result(metrics, data, task, out)
    return metrics


def describe(model: Mapping[str, Any], data: SegmentationData) -> Anatomy:
    """Return the network level by level, on a training batch. Raises UserError as :meth:`UNet.check` does."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # the network to be trained is drawn after it
        warnings.filterwarnings("ignore", message="the bottleneck is")  # the training itself will say it
        return anatomy(model, data.example("train").shape[2:], data.batch_size)


def settle_process(config: DictConfig) -> None:
    """Set everything a process carries from one run to the next: seeds, threads, precision, determinism.

    Raises:
        UserError: a value of the config that is none of what its key may hold.
    """
    check_limits(config)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    reset_peak_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    torch.set_num_threads(config.threads or THREADS)
    torch.use_deterministic_algorithms(False)
    # A debugging aid of deterministic mode that costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")  # TF32 where it exists
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the summary says what its banner says
    for intended in (
        "does not have many workers",
        "smaller than the logging interval",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own call
        "could not find the monitored key",  # a run too short to validate
        "Checkpoint directory .* exists and is not empty",  # a resumed run
        "your dataloader is not resumable",  # its sampler is told where to start
        "It is recommended to use `self.log\\(.*sync_dist",  # every process evaluates the whole split
        "Grad strides do not match bucket view strides",  # of one-channel weights laid out channels last
    ):
        warnings.filterwarnings("ignore", message=f".*{intended}")


def build_data(config: DictConfig) -> SegmentationData:
    """The data module; a misspelt augmentation argument, which albumentations only warns about, is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="albumentations")
        warnings.filterwarnings("error", message=".*are not valid for transform.*")
        try:
            settings: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
            named = {key: value for key, value in settings.items() if key not in NOT_THE_MODULES}
            return instantiate(named, seed=config.seed, _convert_="all")
        except Exception as error:
            cause = error.__cause__ or error
            raise UserError(f"data={config.data.name}: {' '.join(str(cause).split())}") from error


def build_task(config: DictConfig, data: SegmentationData) -> SegmentationTask:
    """The network for this data, with loss and optimisation."""
    return task_of(config, data, plain_description(config, data))


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


def plain_description(config: DictConfig, data: SegmentationData) -> dict[str, Any]:
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
        "eval_transforms": for_axes(transforms, data.source.spatial_dims),
        "eval_tile": data.eval_tile and list(data.eval_tile),
        "eval_overlap": data.eval_overlap,
    }


def task_of(
    config: DictConfig, data: SegmentationData, description: Mapping[str, Any], network: UNet | None = None
) -> SegmentationTask:
    """Return the task of a description, with a new network unless one is given.

    Loss and optimisation are the config's, and how evaluation sees an image.
    """
    return SegmentationTask(
        lay(network or UNet(**description["model"]), channels_last),
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
        Pictures(config.pictures),
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


def load_best(task: SegmentationTask, out: Path) -> Mapping[str, float]:
    """Put the best checkpoint's weights in place (the last one's where none was validated).

    Returns which epoch and step that is, and of the best its ``best/val_miou``: what a choice between runs may look at.
    """
    for name in ("best", "last"):
        path = out / CHECKPOINTS / f"{name}.ckpt"
        if path.is_file():
            checkpoint = read_checkpoint(path)
            task.load_state_dict(checkpoint["state_dict"])
            told = {f"{name}/epoch": checkpoint["epoch"] + 1, f"{name}/step": checkpoint["global_step"]}
            if name == "best":
                told["best/val_miou"] = next(
                    float(state["best_model_score"])
                    for state in checkpoint["callbacks"].values()
                    if state.get("monitor") == "val/miou"
                )
            return told
    return {}


def evaluate(
    trainer: L.Trainer, task: SegmentationTask, data: SegmentationData, split: str | None = None
) -> dict[str, Any]:
    """Score a split; None: the test split or, where the data set has none here, the validation split.

    Every score has its split's name. Training images are scored as all others are: whole and unaugmented.
    """
    split = split or data.eval_split
    if split == "test":
        (scores,) = trainer.test(task, data, verbose=False)
    elif split == "val":
        (scores,) = trainer.validate(task, data, verbose=False)
    else:
        (scores,) = trainer.validate(task, data.eval_loader(split), verbose=False)
        scores = {name.replace("val/", f"{split}/", 1): value for name, value in scores.items()}
    task.to(trainer.strategy.root_device)  # from which the trainer takes it when it ends
    absent = task.confusion.absent(task.classes)
    return {name: value for name, value in scores.items() if name.startswith(f"{split}/")} | {f"{split}/absent": absent}


def leave_pictures(task: SegmentationTask, data: SegmentationData, out: Path, count: int) -> None:
    """``predictions.png``: the evaluated split's most varied images, of a large one its most varied part."""
    if count == 0:
        return
    split = data.eval_split
    panels = predict_panels(task, data, split, data.samples[split].most_varied(count))
    with whole(out / "predictions.png") as file:
        sheet(panels, data.source.classes, data.source.colors, data.source.spatial_dims).save(file, "PNG")


def leave_hparams(trainer: L.Trainer, config: DictConfig, metrics: Mapping[str, Any]) -> None:
    """Flat hyper-parameters with the final numbers, once, for TensorBoard's HParams tab.

    The numbers are called ``final/...``: TensorBoard files them under step 0, where ``val/miou`` has its own curve.
    """
    if writer_of(trainer) is None:
        return
    left_out = ("trainer.", "data.source", "data.train_transforms", "data.eval", "data._target_")
    values: Any = OmegaConf.to_container(config, resolve=True)
    chosen = {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(values, operators=True).items()
        if not key.startswith(left_out) and not is_runtime_key(key)
    }
    reported = ("test/", "val/", "time/", "model/")
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    final = {f"final/{name.split('/', 1)[1]}": value for name, value in numbers.items() if name.startswith(reported)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen, final)
            logger.finalize("success")  # writes hparams.yaml too, and ends the thread that writes events
