"""Train a U-Net whose resampling you choose."""

from omegaconf import DictConfig

from unet.runs.cli import hydra_script
from unet.runs.run import run_job


@hydra_script("train")
def main(config: DictConfig) -> float:
    """Train, evaluate once, leave a run folder; return the score that a sweep compares."""
    from unet.training.train import train  # torch is imported here, so that --help answers at once

    return run_job(train, config)


if __name__ == "__main__":
    main()
