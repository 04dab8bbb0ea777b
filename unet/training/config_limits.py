"""Validation of a composed config in one pass, before any data is read.

Plain values are checked key by key, the network by building it without memory, on the meta device.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError, did_you_mean
from unet.hardware import MAX_THREADS
from unet.network.model import UNet
from unet.task.losses import CLASS_WEIGHTS, LOSSES, are_weights
from unet.task.schedules import SCHEDULES


@dataclass(frozen=True)
class Limit:
    """Attributes: what is expected, in words; whether a value is that; the names, of which the nearest is offered."""

    expected: str
    holds: Callable[[Any], bool]
    names: Sequence[str] = ()


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def integer(least: int, most: float = math.inf) -> Limit:
    return Limit(
        f"an integer of at least {least}" if most == math.inf else f"an integer of {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def fraction(what: str = "a share") -> Limit:
    return Limit(f"{what} of at least 0 and below 1", lambda value: number(value) and 0 <= value < 1)


def one_of(*values: Any) -> Limit:
    names = [str(value) for value in values]
    return Limit(f"one of {', '.join(names)}", lambda value: value in values, names)


def or_null(limit: Limit) -> Limit:
    return Limit(f"null or {limit.expected}", lambda value: value is None or limit.holds(value), limit.names)


POSITIVE = Limit("a number above 0", lambda value: number(value) and value > 0)
NOT_NEGATIVE = Limit("a number of at least 0", lambda value: number(value) and value >= 0)
SWITCH = Limit("true or false", lambda value: isinstance(value, bool))
WORKERS = Limit("auto or an integer of at least 0", lambda value: value == "auto" or integer(0).holds(value))
WEIGHTS = Limit(
    f"{', '.join(CLASS_WEIGHTS)} or numbers of at least 0, one a class and not all 0",
    lambda value: value in CLASS_WEIGHTS if isinstance(value, str) else isinstance(value, list) and are_weights(value),
    tuple(CLASS_WEIGHTS),
)
BETAS = Limit(
    "two numbers of at least 0 and below 1",
    lambda value: isinstance(value, Sequence) and len(value) == 2 and all(map(fraction().holds, value)),
)

SECTIONS = ("model", "loss", "optim", "data", "data.source", "trainer")
LIMITS: Mapping[str, Limit] = {
    "seed": integer(0, 2**32 - 1),  # what numpy takes
    "threads": or_null(integer(1, MAX_THREADS)),
    "compile": SWITCH,
    "diagnostics": SWITCH,
    "num_logged_images": integer(0),
    "feature_maps": integer(0),
    "ema": or_null(fraction("a decay")),
    "early_stopping": or_null(integer(1)),
    "model.match": or_null(one_of("parameters", "flops")),
    "model.spatial_dims": or_null(one_of(1, 2, 3)),
    "model.dropout": fraction("a probability"),
    "loss.name": one_of(*LOSSES),
    "loss.class_weights": WEIGHTS,
    "loss.logit_adjustment": SWITCH,
    "optim.lr": POSITIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.betas": BETAS,
    "optim.warmup": Limit("a share of 0 to 1", lambda value: number(value) and 0 <= value <= 1),
    "optim.schedule": one_of(*SCHEDULES),
    "data.batch_size": integer(1),
    "data.eval_batch_size": integer(1),
    "data.samples_per_epoch": or_null(integer(1)),
    "data.sampling": one_of("uniform", "class_balanced", "foreground"),
    "data.num_workers": WORKERS,
    "data.eval_overlap": fraction(),
    "data.cache_gb": NOT_NEGATIVE,
    "data.crop.sequence": integer(1),
    "data.crop.picture": integer(1),
    "data.crop.volume": integer(1),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.max_epochs": or_null(integer(-1)),
    "trainer.max_steps": integer(-1),
    "trainer.min_epochs": or_null(integer(0)),
    "trainer.min_steps": or_null(integer(0)),
    "trainer.limit_train_batches": or_null(POSITIVE),
    "trainer.limit_val_batches": or_null(POSITIVE),
    "trainer.limit_test_batches": or_null(POSITIVE),
    "trainer.overfit_batches": NOT_NEGATIVE,
    "trainer.val_check_interval": or_null(POSITIVE),
    "trainer.check_val_every_n_epoch": or_null(integer(1)),
    "trainer.num_sanity_val_steps": integer(-1),
    "trainer.log_every_n_steps": integer(1),
    "trainer.gradient_clip_val": or_null(NOT_NEGATIVE),
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.num_nodes": integer(1),
    "trainer.barebones": SWITCH,
}
"""By key; the network and the files are checked by what reads them."""


def check_limits(config: DictConfig) -> None:
    """Raise UserError at the first value of a training that cannot be."""
    for section in SECTIONS:
        found = OmegaConf.select(config, section, default={})
        if not isinstance(found, Mapping | DictConfig):
            raise UserError(
                f"{section}: expected the keys below it, found {found!r}; leave it out, or set {section}.KEY"
            )
    check_values(config, LIMITS)
    batch, samples = (OmegaConf.select(config, f"data.{key}") for key in ("batch_size", "samples_per_epoch"))
    if batch is not None and samples is not None and samples < batch:
        raise UserError(f"data.samples_per_epoch: expected at least one batch ({batch}), found {samples}")
    if "model" in config:
        check_network(OmegaConf.to_container(config.model, resolve=True))


ARCHITECTURE = set(inspect.signature(UNet).parameters) - {"in_channels", "num_classes", "spatial_dims"}


def check_network(model: Any) -> None:
    """Raise UserError unless the network can be built for images of some number of axes, which the data decides."""
    stages = model.get("stride", 2)
    axes = [len(stride) for stride in stages if isinstance(stride, list)] if isinstance(stages, list) else []
    options = {key: value for key, value in model.items() if key in ARCHITECTURE}
    errors = []
    for spatial_dims in dict.fromkeys([model["spatial_dims"]] if model.get("spatial_dims") else [*axes[:1], 2, 1, 3]):
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                UNet(**options, spatial_dims=spatial_dims)
            return
        except UserError as error:
            errors.append(error)
    raise errors[0]


def check_values(config: DictConfig, limits: Mapping[str, Limit]) -> None:
    """Raise UserError at the first value that is none of what its key may hold; keys that are absent are left out."""
    for key, limit in limits.items():
        value = OmegaConf.select(config, key, default=Ellipsis)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if value is Ellipsis or limit.holds(value):
            continue
        if limit.names and isinstance(value, str):
            valid = limit.expected.removeprefix("null or ").removeprefix("one of ")
            raise UserError(f"{key}: unknown {value!r}{did_you_mean(value, limit.names)} (valid: {valid})")
        raise UserError(f"{key}: expected {limit.expected}, found {value!r}")
