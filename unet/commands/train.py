"""Train a U-Net with the resampling you choose."""

import gc
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unet.runs.cli import hydra_script
from unet.runs.run import run_job


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


if __name__ == "__main__":
    main()
