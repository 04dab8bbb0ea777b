"""Learning-rate schedules by name, each a function of (optimizer, steps, settings)."""

from collections.abc import Callable, Mapping

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from unet.errors import UserError


def one_cycle(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Up from lr / 25 to lr over the first ``warmup`` share of the steps, then down to nearly nothing (Smith 2018)."""
    lr = optimizer.param_groups[0]["lr"]
    steps = max(steps, 4)
    rise = min(max(warmup, 2 / steps), 1 - 1 / steps)  # torch divides by either half's number of steps less one
    # Momentum is left alone: cycling AdamW's beta1 as well brought nothing and hides a second schedule.
    return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=rise, cycle_momentum=False)


def cosine(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """Linear warm-up over the first ``warmup`` share of the steps, then half a cosine to zero (Loshchilov 2017)."""
    rise = max(1, round(warmup * steps))
    phases = [LinearLR(optimizer, 1e-3, 1.0, rise), CosineAnnealingLR(optimizer, max(1, steps - rise))]
    return SequentialLR(optimizer, phases, milestones=[rise])


def constant(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """The learning rate as given, throughout."""
    return ConstantLR(optimizer, factor=1.0)


SCHEDULES: Mapping[str, Callable[[Optimizer, int, float], LRScheduler]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "constant": constant,
}


def make_schedule(name: str, optimizer: Optimizer, steps: float, warmup: float) -> LRScheduler:
    """The schedule of that name over ``steps`` optimizer steps."""
    if steps == float("inf"):
        if name != "constant":
            raise UserError(f"optim.schedule={name} needs an end: set trainer.max_epochs or trainer.max_steps")
        steps = 0
    return SCHEDULES[name](optimizer, int(steps), warmup)
