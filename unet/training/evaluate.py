"""A checkpoint scored again, with the numbers and diagnostics of its training, on any split of any data."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from unet.data import SegmentationData
from unet.data.targets import check_targets
from unet.diagnostics import diagnose
from unet.errors import UserError, did_you_mean
from unet.hardware import accelerator_name, resolve_precision
from unet.inference.checkpoint import EXPECTED, from_checkpoint, read_checkpoint
from unet.io.atomic import make_folder, write_json
from unet.io.config_keys import CONFIGS, all_keys
from unet.io.provenance import provenance
from unet.io.run_folder import CONFIG, METRICS, load_run_config
from unet.network.geometry import level_sizes
from unet.network.model import UNet
from unet.runs.run_names import parse
from unet.task.losses import class_weights
from unet.task.module import SegmentationTask
from unet.training.build import build_data, task_from_metadata, trainer_of
from unet.training.process import setup_process
from unet.training.train import evaluate

TRAINER = ("accelerator", "deterministic", "benchmark", "inference_mode", "limit_val_batches", "limit_test_batches")
"""The trainer's settings that an evaluation depends on, beside the precision."""

NEEDED = (
    *("seed", "threads", "loss", "data._target_", "data.source"),
    *(f"trainer.{key}" for key in ("precision", *TRAINER)),
)
"""Keys of a run's config without which nothing can be scored."""


@dataclass(frozen=True)
class Evaluated:
    """What came out.

    Attributes:
        metrics: what ``metrics.json`` holds: scores, diagnostics and provenance.
        diagnostics: those of them that are no scores.
        split: what was scored.
        classes: their names.
    """

    metrics: dict[str, Any]
    diagnostics: dict[str, float]
    split: str
    classes: list[str]


def evaluate_checkpoint(
    path: Path,
    overrides: Sequence[str] = (),
    split: str | None = None,
    out: Path | None = None,
    diagnosing: bool = True,
) -> Evaluated:
    """Score the checkpoint's network.

    Args:
        path: the checkpoint.
        overrides: values of its run's config to change, ``data.root=...``, or ``data=NAME`` for other data.
        split: ``train``, ``val`` or ``test``; None: the one its training was scored on.
        out: a folder that gets ``metrics.json`` and ``confusions.npz``; None: nothing is written.
        diagnosing: whether to compute the diagnostics too.

    Raises:
        UserError: a checkpoint, data or a split that is not there, classes that are not the network's, or a folder that
            cannot be written to or holds numbers already.
    """
    if out is not None:
        make_room(out)
    checkpoint = read_checkpoint(path)
    network = from_checkpoint(checkpoint, path).net
    config = config_of(path, overrides)
    setup_process(config)
    data = build_data(config)
    data.scan()
    task = loaded(path, checkpoint, network, config, data)
    chosen = split or data.eval_split
    if chosen not in data.samples:
        raise UserError(f"split={chosen}: the data has none{did_you_mean(str(chosen), data.samples)} ({listed(data)})")
    trainer = evaluating_trainer(config, network, data)
    if config.get("compile"):
        network.compile()
    scores = evaluate(trainer, task, data, chosen)
    diagnosed: dict[str, float] = {}
    if diagnosing:
        with tempfile.TemporaryDirectory() as spare:
            diagnosed = diagnose(task, data, chosen, out or Path(spare))
    metrics = {
        **diagnosed,
        **scores,
        "checkpoint": str(path),
        **reached(checkpoint),
        "split": chosen,
        "data": config.data.name,
        "precision": str(trainer.precision),
        **provenance(),
    }
    if out is not None:
        write_json(out / METRICS, metrics)
    diagnosed = {name: value for name, value in diagnosed.items() if name not in scores}
    return Evaluated(metrics, diagnosed, chosen, list(task.classes))


def make_room(folder: Path) -> None:
    """Make the folder; raise UserError where that cannot be, or where it holds numbers already."""
    if (folder / METRICS).exists():
        raise UserError(f"{folder / METRICS}: is there already; choose another output")
    make_folder(folder, "output")


def reached(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """How far the training was; nothing of a checkpoint that was stripped to the network."""
    if not {"epoch", "global_step"} <= checkpoint.keys():
        return {}
    return {"checkpoint/epoch": checkpoint["epoch"] + 1, "checkpoint/step": checkpoint["global_step"]}


def listed(data: SegmentationData) -> str:
    return f"valid: {', '.join(data.samples)}"


def config_of(path: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of the run that a checkpoint lies in, two folders above it, with what is to be changed.

    ``data=NAME`` puts the whole of another data set's config in place; without a run's config it is needed.
    """
    folder = path.resolve().parent.parent
    elsewhere = [override for override in overrides if override.startswith("data=")]
    changes = list(overrides)
    if elsewhere:
        belonging = [override for override in overrides if override.startswith(("data=", "data."))]
        changes = [override for override in overrides if override not in belonging]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = compose("train", belonging)
        OmegaConf.resolve(composed)
        config = load_run_config(folder) if (folder / CONFIG).is_file() else composed
        config.data = composed.data
        config.data.batch_size = 1  # nothing is trained: a set may be smaller than a training's batch
    elif (folder / CONFIG).is_file():
        config = load_run_config(folder)
    else:
        raise UserError(
            f"{folder / CONFIG}: no such file, so the run cannot say which data to score {path.name} on; say it with "
            f"data=NAME and data.root=PATH"
        )
    gone = next((key for key in NEEDED if OmegaConf.select(config, key, default=Ellipsis) is Ellipsis), None)
    if gone is not None:
        raise UserError(f"{folder / CONFIG}: holds no {gone}; expected the whole config that a training left")
    check_targets(config.data)  # whoever gave the checkpoint wrote this file too
    for override in parse(changes, None):
        key = override.key_or_group
        if key not in all_keys(config):
            raise UserError(f"{key}: no such key in the run's config{did_you_mean(key, all_keys(config))}")
        value = override.value()
        if key == "data.root" and config.data.source.get("root") == config.data.root:
            config.data.source.root = value  # a run's config holds values, no references
        OmegaConf.update(config, key, value)
    return config


def loaded(
    path: Path, checkpoint: dict[str, Any], network: UNet, config: DictConfig, data: SegmentationData
) -> SegmentationTask:
    """Return the network as a task for ``data``, whose classes and channels are checked to be the network's."""
    description = {"log_weights": None, **checkpoint["description"]}
    model = description["model"]
    if list(data.source.classes) != description["classes"]:
        raise UserError(
            f"data={config.data.name} has the classes {', '.join(data.source.classes)}, but {path} was trained for "
            f"{', '.join(description['classes'])}; they must be the same, in the same order"
        )
    found, wanted = (data.channels, data.source.spatial_dims), (model["in_channels"], model["spatial_dims"])
    if found != wanted:
        raise UserError(
            f"data={config.data.name}: images of {found[0]} channels and {found[1]} axes, but {path} was trained on "
            f"{wanted[0]} channels and {wanted[1]} axes"
        )
    if "class_weights" not in description:  # an older checkpoint: of the training data, which this should be
        loss: Any = OmegaConf.to_container(config.loss, resolve=True)
        weights = class_weights(loss.get("class_weights", "none"), data.samples["train"].label_counts)
        description["class_weights"] = weights
    try:
        task = task_from_metadata(config, data, description, network)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: its weights do not fit its description ({str(error).splitlines()[0]}); {EXPECTED}"
        ) from None
    return task


def evaluating_trainer(config: DictConfig, network: UNet, data: SegmentationData) -> L.Trainer:
    """A trainer that scores as the run's own did, on one device, and leaves nothing behind."""
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    sizes = level_sizes(data.example("train").shape[2:], network.strides)
    precision: Any = resolve_precision(settings["precision"], accelerator_name(settings["accelerator"]), sizes)
    return trainer_of(
        **{key: settings[key] for key in TRAINER},
        precision=precision,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
