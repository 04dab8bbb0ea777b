"""Train a U-Net with the resampling you choose."""

import gc
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unet.runs.cli import hydra_script
from unet.runs.run import run_job

USED_BY_TRAINING = ("unet.training.train", "unet.diagnostics.diagnose", "torch.utils.tensorboard")
"""Modules that import all libraries of a training."""


@hydra_script("train")
def main(config: DictConfig) -> float:
    """Train and evaluate into a run folder; return the score that a sweep compares."""
    return run_job(train_and_evaluate, config)


def train_and_evaluate(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Return the metrics of a run, trained in this process; see :func:`unet.training.train.train`."""
    gc.disable()  # the imports leave no garbage, and collections take a sixth of their time
    from unet.training.train import train  # imports torch, which --help and the process of a sweep do not need

    gc.freeze()
    gc.enable()
    return train(config, folder)


def preload(data: dict[str, Any]) -> None:
    """Import what a training uses, and read the data of a config's section ``data``, for the jobs of a sweep.

    Called in the server from which their processes are forked; see :mod:`unet.runs.job_server`.
    """
    from unet.training.shared_data import read_shared_data

    for name in USED_BY_TRAINING:
        import_module(name)
    read_shared_data(data)


if __name__ == "__main__":
    main()
