"""Learning-rate schedules by name, each a function of (optimizer, steps, settings)."""

from collections.abc import Callable, Mapping
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from unet.errors import UserError


def one_cycle(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Increase lr / 25 to lr over the first ``warmup`` fraction of the steps, then decrease it (Smith 2018)."""
    lr = [group["lr"] for group in optimizer.param_groups]
    steps = max(steps, 4)
    fraction = min(max(warmup, 2 / steps), 1 - 1 / steps)  # torch divides by the steps of either phase less one
    # AdamW's beta1 is not cycled: it did not improve the scores.
    return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=fraction, cycle_momentum=False)


def cosine(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Warm up linearly over the first ``warmup`` fraction of the steps, then follow a cosine to 0 (Loshchilov 2017)."""
    return after_warmup(CosineAnnealingLR, optimizer, steps, warmup)


def poly(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Warm up as ``cosine``, then decrease as the power 0.9 of the remaining steps (DeepLab, Chen et al. 2017)."""
    return after_warmup(partial(PolynomialLR, power=0.9), optimizer, steps, warmup)


def after_warmup(
    decay: Callable[[Optimizer, int], LRScheduler], optimizer: Optimizer, steps: int, warmup: float
) -> LRScheduler:
    """Return a linear increase over the first ``warmup`` fraction of the steps, followed by a decay."""
    warmup_steps = max(1, round(warmup * steps))
    phases = [LinearLR(optimizer, 1e-3, 1.0, warmup_steps), decay(optimizer, max(1, steps - warmup_steps))]
    return SequentialLR(optimizer, phases, milestones=[warmup_steps])


def constant(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Keep the learning rate constant."""
    return ConstantLR(optimizer, factor=1.0)


SCHEDULES: Mapping[str, Callable[[Optimizer, int, float], LRScheduler]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "poly": poly,
    "constant": constant,
}


def make_schedule(name: str, optimizer: Optimizer, steps: float, warmup: float) -> LRScheduler:
    """Return a learning-rate schedule of ``steps`` optimizer steps."""
    if steps == float("inf"):
        if name != "constant":
            raise UserError(f"optim.schedule={name} needs an end: set trainer.max_epochs or trainer.max_steps")
        steps = 0
    return SCHEDULES[name](optimizer, int(steps), warmup)
