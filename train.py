"""Train a U-Net whose resampling you choose: ``python train.py model.down=strided``; ``--help`` says what else."""

import hydra
from omegaconf import DictConfig

from unet.command import command
from unet.job import run_job


@command("train")
@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(config: DictConfig) -> float:
    """Train, evaluate once, leave a run folder; returns the score that a sweep compares."""
    from unet.training import train  # torch is imported here, so that --help answers at once

    return run_job(train, config)


if __name__ == "__main__":
    main()
