"""Validation of the plain values of a composed config, in one pass, before any data is read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError, did_you_mean
from unet.hardware import MAX_THREADS
from unet.io.config_keys import FIXED_TRAINER_KEYS, fixed_trainer_key
from unet.network.encoders import split_encoder
from unet.task.class_weights import CLASS_WEIGHTS, are_weights
from unet.task.losses import make_loss
from unet.task.optimizers import OPTIMIZERS
from unet.task.parameters import PARTS
from unet.task.schedules import SCHEDULES


@dataclass(frozen=True)
class Limit:
    """The valid values of a key; an error message suggests the nearest of ``names``."""

    expected: str
    accepts: Callable[[Any], bool]
    names: Sequence[str] = ()


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def integer_range(least: int, most: float = math.inf) -> Limit:
    """Return the limit of integers from ``least`` to ``most``."""
    return Limit(
        f"an integer of at least {least}" if most == math.inf else f"an integer of {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def fraction(noun: str = "a fraction") -> Limit:
    """Return the limit of numbers from 0 to 1, 1 excluded; ``noun`` names them in error messages."""
    return Limit(f"{noun} of at least 0 and below 1", lambda value: is_number(value) and 0 <= value < 1)


def one_of(*values: Any) -> Limit:
    """Return the limit of some values."""
    names = [str(value) for value in values]
    return Limit(f"one of {', '.join(names)}", lambda value: value in values, names)


def or_null(limit: Limit) -> Limit:
    """Return a limit that also accepts null."""
    return Limit(f"null or {limit.expected}", lambda value: value is None or limit.accepts(value), limit.names)


POSITIVE = Limit("a number above 0", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Limit("a number of at least 0", lambda value: is_number(value) and value >= 0)
BOOLEAN = Limit("true or false", lambda value: isinstance(value, bool))
WORKERS = Limit("auto or an integer of at least 0", lambda value: value == "auto" or integer_range(0).accepts(value))
WEIGHTS = Limit(
    f"{', '.join(CLASS_WEIGHTS)} or one number of at least 0 per class, not all 0",
    lambda value: value in CLASS_WEIGHTS if isinstance(value, str) else isinstance(value, list) and are_weights(value),
    tuple(CLASS_WEIGHTS),
)
TEXT = Limit("a text", lambda value: isinstance(value, str) and value != "")
PARTS_LIST = Limit(
    f"a list of {', '.join(PARTS)}, such as [encoder]",
    lambda value: isinstance(value, list) and len(value) > 0 and all(part in PARTS for part in value),
)
CALLBACKS = Limit(
    "null or a list, such as [{_target_: my_module.MyCallback}]",
    lambda value: value is None or isinstance(value, list),
)
BETAS = Limit(
    "two numbers of at least 0 and below 1",
    lambda value: isinstance(value, Sequence) and len(value) == 2 and all(map(fraction().accepts, value)),
)

DURATION = Limit(
    "-1 (no limit) or an integer of at least 1 (an untrained network is not evaluated)",
    lambda value: value == -1 or integer_range(1).accepts(value),
)
CHECKPOINTING = Limit("null or true: a run is evaluated with its checkpoints", lambda value: value in (None, True))
NOT_BAREBONES = Limit("false: a run has callbacks, checkpoints and a logger", lambda value: value is False)
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "64-true", "32", "16", "bf16", "64")
PRECISION = Limit(
    f"one of {', '.join(PRECISIONS)} (weights in half precision cannot be trained)",
    lambda value: not isinstance(value, float) and str(value) in PRECISIONS,
)


def one_or_several(names: Sequence[str], noun: str = "") -> Limit:
    """Return the limit of one of ``names``, or a list of them."""
    return Limit(
        f"one of {', '.join(names)}, or a list of them{noun}",
        lambda value: value in names or (isinstance(value, list) and value != [] and all(v in names for v in value)),
        names,
    )


SAMPLING = one_or_several(("uniform", "class_balanced", "foreground"), ", one per epoch")
LOGGER = one_or_several(("tensorboard", "csv", "wandb"))
SECTIONS = ("model", "loss", "optim", "data", "data.source", "trainer")
LIMITS: Mapping[str, Limit] = {
    key: limit
    for keys, limit in {
        "seed": integer_range(0, 2**32 - 1),  # the range of numpy seeds
        "threads": or_null(integer_range(1, MAX_THREADS)),
        "diagnostics prune loss.logit_adjustment model.deep_supervision model.checkpointing": BOOLEAN,
        "compile": Limit("auto, true or false", lambda value: value == "auto" or isinstance(value, bool), ("auto",)),
        "logger": LOGGER,
        "num_logged_images feature_maps": integer_range(0),
        "ema": or_null(fraction("a decay")),
        "early_stopping data.samples_per_epoch trainer.check_val_every_n_epoch": or_null(integer_range(1)),
        "model.match": or_null(one_of("parameters", "flops")),
        "model.spatial_dims": or_null(one_of(1, 2, 3)),
        "model.dropout": fraction("a probability"),
        "loss.class_weights": WEIGHTS,
        "optim.name": one_of(*OPTIMIZERS),
        "optim.lr": POSITIVE,
        "optim.weight_decay data.cache_gb trainer.overfit_batches": NOT_NEGATIVE,
        "optim.betas": BETAS,
        "optim.freeze": or_null(PARTS_LIST),
        "optim.init_lr_factor": or_null(POSITIVE),
        "init": or_null(TEXT),
        "optim.warmup data.crop.foreground": Limit(
            "a fraction of 0 to 1", lambda value: is_number(value) and 0 <= value <= 1
        ),
        "optim.schedule": one_of(*SCHEDULES),
        "data.batch_size data.eval_batch_size data.crop.sequence data.crop.picture data.crop.volume": integer_range(1),
        "data.sampling": SAMPLING,
        "data.num_workers": WORKERS,
        "data.eval_overlap": fraction(),
        "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
        "trainer.max_epochs": or_null(DURATION),
        "trainer.max_steps": DURATION,
        "trainer.num_sanity_val_steps": integer_range(-1),
        "trainer.min_epochs trainer.min_steps": or_null(integer_range(0)),
        "trainer.limit_train_batches trainer.limit_val_batches trainer.limit_test_batches": or_null(POSITIVE),
        "trainer.val_check_interval": or_null(POSITIVE),
        "trainer.log_every_n_steps trainer.accumulate_grad_batches trainer.num_nodes": integer_range(1),
        "trainer.precision": PRECISION,
        "trainer.callbacks": CALLBACKS,
        "trainer.enable_checkpointing": CHECKPOINTING,
        "trainer.barebones": NOT_BAREBONES,
        "trainer.deterministic": or_null(one_of(True, False, "warn")),
        "trainer.gradient_clip_algorithm": or_null(one_of("norm", "value")),
        "trainer.gradient_clip_val": or_null(NOT_NEGATIVE),
    }.items()
    for key in keys.split()
}
"""The limits of plain values by key; the network's options are checked by building it, files by reading them."""


def validate_config(config: DictConfig) -> None:
    """Raise UserError at the first invalid value of a training config."""
    for section in SECTIONS:
        value = OmegaConf.select(config, section, default={})
        if not isinstance(value, Mapping | DictConfig):
            raise UserError(f"{section}: expected a mapping, found {value!r}; leave it out, or set {section}.KEY")
    for key in FIXED_TRAINER_KEYS & set(config.trainer):
        raise UserError(fixed_trainer_key(f"trainer.{key}"))
    check_values(config, LIMITS)
    make_loss(OmegaConf.select(config, "loss.name"), None)
    encoder = OmegaConf.select(config, "model.encoder", default="none")
    _, pretrained = split_encoder(OmegaConf.to_container(encoder) if OmegaConf.is_config(encoder) else encoder)
    has_weights = pretrained or OmegaConf.select(config, "init") is not None
    if OmegaConf.select(config, "optim.init_lr_factor") is not None and not has_weights:
        raise UserError(
            "optim.init_lr_factor: without init there are no loaded weights; add init=CHECKPOINT, or a pretrained "
            "model.encoder"
        )
    batch, samples = (OmegaConf.select(config, f"data.{key}") for key in ("batch_size", "samples_per_epoch"))
    if batch is not None and samples is not None and samples < batch:
        raise UserError(f"data.samples_per_epoch: expected at least one batch ({batch}), found {samples}")


def check_values(config: DictConfig, limits: Mapping[str, Limit]) -> None:
    """Raise UserError at the first value outside the limit of its key; absent keys are skipped."""
    for key, limit in limits.items():
        value = OmegaConf.select(config, key, default=Ellipsis)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if value is Ellipsis or limit.accepts(value):
            continue
        if limit.names and isinstance(value, str):
            valid = limit.expected.removeprefix("null or ").removeprefix("one of ")
            raise UserError(f"{key}: unknown {value!r}{did_you_mean(value, limit.names)} (valid: {valid})")
        raise UserError(f"{key}: expected {limit.expected}, found {value!r}")
