"""A run: build its objects from the config, train, evaluate once, and write everything to its folder."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from unet.analysis.network_summary import NetworkSummary, summarize_network, to_markdown, to_metrics
from unet.data import SegmentationData
from unet.data.module import shutdown_workers_on_exit
from unet.data_check.advice import scan_data
from unet.diagnostics.best_effort import skip_on_error
from unet.diagnostics.confusions import save_confusions
from unet.errors import UserError
from unet.hardware import accelerator_name, device_name
from unet.inference.checkpoint import read_checkpoint
from unet.inference.segmenter import Segmenter
from unet.io.atomic import atomic_write, write_json
from unet.io.config_keys import flatten, is_runtime_key
from unet.io.provenance import peak_memory_bytes, provenance
from unet.io.run_folder import CHECKPOINTS, CONFUSIONS, METRICS
from unet.task.module import SegmentationTask
from unet.task.parameters import check_frozen_are_loaded, freeze_parts
from unet.training.build import (
    build_trainer,
    check_network,
    check_trainer,
    checkpoint_metadata,
    task_from_metadata,
)
from unet.training.callbacks.progress import Progress
from unet.training.callbacks.pruning import pruning_reason
from unet.training.callbacks.tensorboard import PredictionImages, add_curves, get_writer
from unet.training.console import print_initial_weights, print_result, print_summary
from unet.training.initial_weights import LoadedWeights, leakage_warning, load_initial_weights, read_initial_weights
from unet.training.loggers import log_result
from unet.training.pretrained_encoder import load_pretrained_encoder, weights_sha256
from unet.training.process import setup_process
from unet.training.shared_data import get_baseline, get_data
from unet.visualization import prediction_grid, to_png


def train(config: DictConfig, out: Path) -> dict[str, Any]:
    """Train and evaluate the network of a config, write everything to the folder ``out``, and return the metrics.

    Raises:
        UserError: the config or the data is invalid, or the loss is not finite.
        Interrupted: a signal stopped the training; ``last.ckpt`` is saved.
    """
    setup_process(config)
    check_trainer(config)
    data = get_data(config)
    network = check_network(config, data)
    freeze_parts(network, config.optim.freeze)
    source = read_initial_weights(config.init) if config.init is not None and config.ckpt_path is None else None
    if source is not None and config.model.match is None:  # else the width follows from the data
        initialize(network, config, data, source)
    scan_data(data, config)
    description = checkpoint_metadata(config, data)
    summary = summarize(description["model"], data)  # refuses a network before its memory is allocated
    task = task_from_metadata(config, data, description | {"field": list(summary.fields.logits)})
    weights = initialize(task.net, config, data, source) if source is not None else None
    if config.ckpt_path is not None:
        saved = read_checkpoint(str(config.ckpt_path))["description"]
        task.description |= {key: saved[key] for key in ("loaded", "encoder_sha256") if key in saved}
    elif weights is not None:
        task.description["loaded"] = weights.loaded
    else:
        task.description |= load_encoder(task.net, config, description)
    task.loaded = task.description.get("loaded", [])
    progress = Progress()
    trainer = build_trainer(config, out, progress, [layer.size for layer in summary.layers])
    if trainer.is_global_zero:
        device = device_name(accelerator_name(config.trainer.accelerator))
        print_summary(task, data, summary, trainer.precision, device)
        if weights is not None:
            print_initial_weights(weights, leakage_warning(str(config.init), config))
        elif config.ckpt_path is None and task.loaded:
            print(f"encoder: {len(task.loaded)} pretrained tensors of {config.model.encoder.name}")
        elif config.optim.freeze and config.init is None and not task.loaded:
            print("warning: optim.freeze without init: the frozen parts keep their random weights")
    writer = get_writer(trainer)
    if writer is not None:
        writer.add_text("network", to_markdown(summary), 0)

    with shutdown_workers_on_exit():
        begin = time.perf_counter()
        trainer.fit(task, data, ckpt_path=config.ckpt_path, weights_only=True)
        seconds = time.perf_counter() - begin
        if trainer.global_step == 0:
            raise UserError("no training step was made (trainer.max_time), so there is nothing to evaluate; allow more")
        best = load_best(task, out)
        scores = evaluate(trainer, task, data)
    metrics = {
        **scores,
        **{name: float(value) for name, value in best.items()},
        **to_metrics(summary),
        "time/train_seconds": progress.earlier + seconds,
        "time/samples_per_second": progress.samples_per_second,
        "memory/peak_bytes": torch.cuda.max_memory_allocated() if task.device.type == "cuda" else peak_memory_bytes(),
        "steps": trainer.global_step,
        **({"pruned": reason} if (reason := pruning_reason(trainer)) else {}),
        "seed": config.seed,
        "data": config.data.name,
        "precision": str(trainer.precision),
        **provenance(),
        **({"encoder_sha256": digest} if (digest := task.description.get("encoder_sha256")) else {}),
        **({"init": config.init, "init_sha256": config.get("init_sha256")} if config.init is not None else {}),
    }
    if not trainer.is_global_zero:  # one process writes the results, without waiting for the others
        return metrics
    write_json(out / METRICS, metrics)  # first of all, so that no later error loses the scores
    with skip_on_error(CONFUSIONS):
        save_confusions(out / CONFUSIONS, task, data, data.eval_split)
    with skip_on_error("baseline"):
        metrics |= get_baseline(data)
    write_json(out / METRICS, metrics)
    save_prediction_grid(trainer, data, out)
    if config.diagnostics:
        from unet.diagnostics.diagnose import diagnose  # imports SciPy and scikit-image

        begin = time.perf_counter()
        diagnosed = diagnose(task, data, data.eval_split)
        metrics |= {**diagnosed, "time/diagnostics_seconds": time.perf_counter() - begin}
        write_json(out / METRICS, metrics)
        if writer is not None:
            add_curves(writer, diagnosed, trainer.global_step)
    log_hparams(trainer, config, metrics)
    print_result(metrics, data, task, out)
    return metrics


def initialize(network: Any, config: DictConfig, data: SegmentationData, source: Segmenter) -> LoadedWeights:
    """Copy the weights of ``init`` into a network. Raises UserError if they do not fit, or a random part is frozen."""
    weights = load_initial_weights(network, list(data.source.classes), source, config.init)
    check_frozen_are_loaded(network, config.optim.freeze, weights.new)
    return weights


def load_encoder(network: Any, config: DictConfig, description: Mapping[str, Any]) -> dict[str, Any]:
    """Load the pretrained weights of ``model.encoder``; return what the description of a checkpoint says of them.

    Raises UserError if they do not fit, or a random part is frozen.
    """
    loaded = load_pretrained_encoder(network, config.model.encoder, description)
    if not loaded:
        return {}
    check_frozen_are_loaded(network, config.optim.freeze, network.state_dict().keys() - set(loaded))
    digest = weights_sha256(config.model.encoder)
    return {"loaded": loaded} | ({"encoder_sha256": digest} if digest else {})


def summarize(model: Mapping[str, Any], data: SegmentationData) -> NetworkSummary:
    """Summarize the network for a training batch. Raises UserError like :meth:`UNet.check`."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # the same state after any operator
        warnings.filterwarnings("ignore", message="the bottleneck is")  # the training warns about it
        return summarize_network(model, data.example("train").shape[2:], data.batch_size)


def load_best(task: SegmentationTask, out: Path) -> Mapping[str, float]:
    """Load the weights of ``best.ckpt``, or of ``last.ckpt`` if there is no best one.

    Returns the epoch and step of the checkpoint and, for the best one, ``best/val_miou``, the score to compare runs by.
    """
    for name in ("best", "last"):
        path = out / CHECKPOINTS / f"{name}.ckpt"
        if path.is_file():
            checkpoint = read_checkpoint(path)
            task.load_state_dict(checkpoint["state_dict"])
            entries = {f"{name}/epoch": checkpoint["epoch"] + 1, f"{name}/step": checkpoint["global_step"]}
            if name == "best":
                entries["best/val_miou"] = next(
                    float(state["best_model_score"])
                    for state in checkpoint["callbacks"].values()
                    if state.get("monitor") == "val/miou"
                )
            return entries
    return {}


def evaluate(
    trainer: L.Trainer, task: SegmentationTask, data: SegmentationData, split: str | None = None
) -> dict[str, Any]:
    """Return the metrics of a split and its number of images; None: the test split, or else the validation split.

    The names of the metrics start with that of the split. Training images are evaluated without augmentation.
    """
    split = split or data.eval_split
    if split == "test":
        (scores,) = trainer.test(task, data, verbose=False)
    elif split == "val":
        (scores,) = trainer.validate(task, data, verbose=False)
    else:
        (scores,) = trainer.validate(task, data.eval_loader(split), verbose=False)
        scores = {name.replace("val/", f"{split}/", 1): value for name, value in scores.items()}
    task.to(trainer.strategy.root_device)  # the trainer moves the task to the CPU at its end
    if task.num_evaluated < len(data.samples[split]) and trainer.is_global_zero:
        print(
            f"warning: only {task.num_evaluated} of {len(data.samples[split])} images of {split} were evaluated "
            f"(trainer.limit_{'test' if split == 'test' else 'val'}_batches, fast_dev_run or overfit_batches)"
        )
    absent = task.confusion.absent_classes(task.classes)
    scores = {name: value for name, value in scores.items() if name.startswith(f"{split}/")}
    return {**scores, f"{split}/images": task.num_evaluated, f"{split}/absent": absent}


def save_prediction_grid(trainer: L.Trainer, data: SegmentationData, out: Path) -> None:
    """Write ``predictions.png``: the images that :class:`PredictionImages` has drawn of the last evaluation."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (images,) = (callback for callback in callbacks if isinstance(callback, PredictionImages))
    panels = [panel for panel in images.panels.values() if panel is not None]
    if panels:
        grid = prediction_grid(panels, data.source.classes, data.source.colors, data.source.spatial_dims)
        with atomic_write(out / "predictions.png") as file:
            file.write(to_png(grid))


def log_hparams(trainer: L.Trainer, config: DictConfig, metrics: Mapping[str, Any]) -> None:
    """Log flat hyper-parameters and the final metrics, in TensorBoard's HParams tab.

    The metrics are named ``final/...``: TensorBoard logs them at step 0, which would be a point of the curve of
    ``val/miou``.
    """
    excluded = ("trainer.", "data.source", "data.train_transforms", "data.eval", "data._target_")
    values: Any = OmegaConf.to_container(config, resolve=True)
    hparams = {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(values, operators=True).items()
        if not key.startswith(excluded) and not is_runtime_key(key)
    }
    reported = ("test/", "val/", "time/", "model/")
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    final = {f"final/{name.split('/', 1)[1]}": value for name, value in numbers.items() if name.startswith(reported)}
    log_result(trainer.loggers, hparams, final)
