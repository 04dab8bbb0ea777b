"""A training that begins again with half the batch where memory runs out, if asked (``halve_batch=true``).

Memory for a step is found wanting in the first steps. Once a validation is behind them the batch is left as it is: what
came after it is not for want of memory alone, and the training can go on from what is saved.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf

from unet.command import quoted
from unet.record import BEST, CHECKPOINTS, CONFIG, forget

KEYS = ("data.batch_size", "trainer.accumulate_grad_batches")
"""Samples in memory together, and how many such batches make a step."""


def as_it_was(config: DictConfig, folder: Path) -> DictConfig:
    """The config with the batch that a run in ``folder`` has come down to, where its steps have as many samples."""
    if not config.halve_batch or not (folder / CONFIG).is_file():
        return config
    before = OmegaConf.load(folder / CONFIG)
    batch, steps = (OmegaConf.select(before, key) for key in KEYS)
    if batch * steps != config.data.batch_size * config.trainer.accumulate_grad_batches:
        return config
    there = OmegaConf.from_dotlist([f"{key}={value}" for key, value in zip(KEYS, (batch, steps), strict=True)])
    return OmegaConf.merge(config, there)  # type: ignore[return-value]


def may_begin_again(config: DictConfig, folder: Path) -> bool:
    """Whether that is asked for, and nothing is lost by it: no resumed run, nor one that has been validated."""
    resumed = config.ckpt_path is not None or (folder / CHECKPOINTS / BEST).exists()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # processes, which would not hear of it
    return config.halve_batch and not resumed and not several


def begin_again(folder: Path, smaller: Sequence[str]) -> NoReturn:
    """Put the same command with other values in this process's place, which gives back all its memory."""
    print(f"memory ran out: beginning again with {' '.join(smaller)}", flush=True)
    for child in multiprocessing.active_children():  # loader processes, which would take this one for living on
        child.kill()
        child.join()
    forget(folder)
    (folder / CONFIG).unlink()
    keys = {override.partition("=")[0] for override in smaller} | {"hydra.run.dir"}
    kept = [word for word in sys.argv if word.partition("=")[0] not in keys]
    os.execv(sys.executable, [sys.executable, *kept, *smaller, f"hydra.run.dir={quoted(str(folder))}"])
