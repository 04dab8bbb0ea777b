"""A training that begins again with half the batch where memory runs out, if asked (``halve_batch=true``).

Memory for a step is found wanting in the first steps. Once an epoch is behind them the batch is left as it is: what
came after it is not for want of memory alone, and the training can go on from what is saved.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unet.command import FULL_ERROR, as_override
from unet.record import BEST, CHECKPOINTS, CONFIG, LAST, METRICS, forget, run_config

KEYS = ("data.batch_size", "trainer.accumulate_grad_batches")
"""Samples in memory together, and how many such batches make a step."""


def as_it_was(config: DictConfig, folder: Path) -> DictConfig:
    """The config with the batch that a run in ``folder`` has come down to, where its steps have as many samples."""
    if not config.halve_batch or not (folder / CONFIG).is_file():
        return config
    before = run_config(folder)
    batch, steps = (OmegaConf.select(before, key) for key in KEYS)
    if not isinstance(batch, int) or not isinstance(steps, int):
        return config
    if batch * steps != config.data.batch_size * config.trainer.accumulate_grad_batches:
        return config
    there = OmegaConf.from_dotlist([f"{key}={value}" for key, value in zip(KEYS, (batch, steps), strict=True)])
    return OmegaConf.merge(config, there)  # type: ignore[return-value]


def may_begin_again(config: DictConfig, folder: Path) -> bool:
    """Whether that is asked for, and little is lost by it: no resumed run, none beyond its first epoch."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # processes, which would not hear of it
    if not config.halve_batch or config.ckpt_path is not None or several:
        return False
    from unet.segmenter import read_checkpoint  # brings torch

    last = folder / CHECKPOINTS / LAST
    beyond = last.is_file() and read_checkpoint(last)["epoch"] > 0
    return not beyond and not (folder / CHECKPOINTS / BEST).exists() and not (folder / METRICS).exists()


def begin_again(folder: Path, smaller: Sequence[str]) -> NoReturn:
    """Put the same command with other values in this process's place, which gives back all its memory."""
    print(f"memory ran out: beginning again with {' '.join(smaller)}", flush=True)
    for child in multiprocessing.active_children():  # loader processes, which would take this one for living on
        child.kill()
        child.join()
    forget(folder)
    (folder / CONFIG).unlink()
    keys = {override.partition("=")[0] for override in smaller} | {"hydra.run.dir"}
    kept = [word for word in sys.argv if word.lstrip("+").partition("=")[0] not in keys]
    os.chdir(HydraConfig.get().runtime.cwd)
    environment = {**os.environ, "HYDRA_FULL_ERROR": str(int(FULL_ERROR))}
    os.execve(sys.executable, [sys.executable, *kept, *smaller, as_override("hydra.run.dir", str(folder))], environment)
