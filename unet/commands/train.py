"""Train a U-Net with the resampling you choose."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unet.runs.cli import hydra_script
from unet.runs.run import run_job


@hydra_script("train")
def main(config: DictConfig) -> float:
    """Train and evaluate into a run folder; return the score that a sweep compares."""
    return run_job(train_here, config)


def train_here(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train in this process, which loads torch and Lightning only here: the process of a sweep needs neither."""
    from unet.training.train import train

    return train(config, folder)


if __name__ == "__main__":
    main()
