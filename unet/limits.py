"""What the plain values of a configuration may be, key by key: said before anything is read or built."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unet.errors import UserError
from unet.hardware import THREADS


@dataclass(frozen=True)
class Limit:
    """Attributes: what is expected, in words; whether a value is that."""

    expected: str
    holds: Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def integer(least: int, most: float = math.inf) -> Limit:
    return Limit(
        f"an integer of at least {least}" if most == math.inf else f"an integer of {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def share(what: str = "a share") -> Limit:
    return Limit(f"{what} of at least 0 and below 1", lambda value: number(value) and 0 <= value < 1)


def or_null(limit: Limit) -> Limit:
    return Limit(f"null or {limit.expected}", lambda value: value is None or limit.holds(value))


POSITIVE = Limit("a number above 0", lambda value: number(value) and value > 0)
NOT_NEGATIVE = Limit("a number of at least 0", lambda value: number(value) and value >= 0)
SWITCH = Limit("true or false", lambda value: isinstance(value, bool))
BETAS = Limit(
    "two numbers of at least 0 and below 1",
    lambda value: isinstance(value, Sequence) and len(value) == 2 and all(map(share().holds, value)),
)

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")

SECTIONS = ("model", "loss", "optim", "data", "data.source", "trainer")
LIMITS: Mapping[str, Limit] = {
    "seed": integer(0, 2**32 - 1),  # what numpy takes
    "threads": or_null(integer(1, THREADS)),
    "compile": SWITCH,
    "diagnostics": SWITCH,
    "pictures": integer(0),
    "feature_maps": integer(0),
    "ema": or_null(share("a decay")),
    "early_stopping": or_null(integer(1)),
    "model.dropout": share("a probability"),
    "loss.logit_adjustment": SWITCH,
    "optim.lr": POSITIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.betas": BETAS,
    "optim.warmup": Limit("a share of 0 to 1", lambda value: number(value) and 0 <= value <= 1),
    "data.cache_gb": NOT_NEGATIVE,
    "data.crop.sequence": integer(1),
    "data.crop.picture": integer(1),
    "data.crop.volume": integer(1),
    "trainer.accelerator": Limit(f"one of {', '.join(ACCELERATORS)}", ACCELERATORS.__contains__),
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
"""Of the keys whose values are used as they are; names, operators and files are checked where they are looked up."""


def check_limits(config: DictConfig) -> None:
    """Raise UserError at the first value that is none of what its key may hold; keys that are absent are left out."""
    for section in SECTIONS:
        found = OmegaConf.select(config, section, default={})
        if not isinstance(found, Mapping | DictConfig):
            raise UserError(
                f"{section}: expected the keys below it, found {found!r}; leave it out, or set {section}.KEY"
            )
    for key, limit in LIMITS.items():
        value = OmegaConf.select(config, key, default=Ellipsis)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if value is not Ellipsis and not limit.holds(value):
            raise UserError(f"{key}: expected {limit.expected}, found {value!r}")
