"""A run, from a composed config to numbers: build, fit, evaluate once, leave everything in one folder."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from unet.analysis.network_summary import NetworkSummary, summarize_network, to_markdown, to_metrics
from unet.data import SegmentationData
from unet.diagnostics import diagnose
from unet.hardware import accelerator_name, device_name
from unet.inference.checkpoint import read_checkpoint
from unet.io.atomic import atomic_write, write_json
from unet.io.config_keys import flatten, is_runtime_key
from unet.io.provenance import peak_memory_bytes, provenance
from unet.io.run_folder import CHECKPOINTS, METRICS
from unet.task.module import SegmentationTask
from unet.training.build import build_data, build_trainer, check_network, checkpoint_metadata, task_from_metadata
from unet.training.callbacks.progress import Progress
from unet.training.callbacks.tensorboard import (
    add_curves,
    predict_panels,
    writer_of,
)
from unet.training.console import print_result, print_summary
from unet.training.process import setup_process
from unet.visualization import prediction_grid


def train(config: DictConfig, out: Path) -> dict[str, Any]:
    """Run ``config`` in the folder ``out``, which is this run's own, and return what ``metrics.json`` holds.

    Raises:
        UserError: the config, the data or the training cannot go on, in one sentence.
        Interrupted: a signal stopped it; ``last.ckpt`` is saved.
    """
    setup_process(config)
    data = build_data(config)
    check_network(config, data)
    data.scan()
    description = checkpoint_metadata(config, data)
    found = describe(description["model"], data)  # refuses too large a network before its memory is asked for
    task = task_from_metadata(config, data, description | {"field": list(found.fields.logits)})
    progress = Progress()
    trainer = build_trainer(config, out, progress, [stage.size for stage in found.layers])
    if trainer.is_global_zero:
        device = device_name(accelerator_name(config.trainer.accelerator))
        print_summary(task, data, found, trainer.precision, device)
    writer = writer_of(trainer)
    if writer is not None:
        writer.add_text("network", to_markdown(found), 0)

    begin = time.perf_counter()
    # Every key of the checkpoint is a plain value or a tensor: nothing in it is ever executed.
    trainer.fit(task, data, ckpt_path=config.ckpt_path, weights_only=True)
    seconds = time.perf_counter() - begin

    best = load_best(task, out)
    scores = evaluate(trainer, task, data)
    metrics = {
        **scores,
        **{name: float(value) for name, value in best.items()},
        **to_metrics(found),
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
    save_prediction_grid(task, data, out, config.num_logged_images)
    if config.diagnostics:
        begin = time.perf_counter()
        diagnosed = diagnose(task, data, data.eval_split, out)
        metrics |= {**diagnosed, "time/diagnostics_seconds": time.perf_counter() - begin}
        write_json(out / METRICS, metrics)
        if writer is not None:
            add_curves(writer, diagnosed, trainer.global_step)
    log_hparams(trainer, config, metrics)
    print_result(metrics, data, task, out)
    return metrics


def describe(model: Mapping[str, Any], data: SegmentationData) -> NetworkSummary:
    """Return the network level by level, on a training batch. Raises UserError as :meth:`UNet.check` does."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # the network to be trained is drawn after it
        warnings.filterwarnings("ignore", message="the bottleneck is")  # the training itself will say it
        return summarize_network(model, data.example("train").shape[2:], data.batch_size)


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
    absent = task.confusion.absent_classes(task.classes)
    return {name: value for name, value in scores.items() if name.startswith(f"{split}/")} | {f"{split}/absent": absent}


def save_prediction_grid(task: SegmentationTask, data: SegmentationData, out: Path, count: int) -> None:
    """``predictions.png``: the evaluated split's most varied images, of a large one its most varied part."""
    if count == 0:
        return
    split = data.eval_split
    panels = predict_panels(task, data, split, data.samples[split].highest_entropy(count))
    with atomic_write(out / "predictions.png") as file:
        prediction_grid(panels, data.source.classes, data.source.colors, data.source.spatial_dims).save(file, "PNG")


def log_hparams(trainer: L.Trainer, config: DictConfig, metrics: Mapping[str, Any]) -> None:
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
