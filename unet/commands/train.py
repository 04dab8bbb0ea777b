"""Train a U-Net with the resampling you choose."""

from omegaconf import DictConfig

from unet.runs.cli import hydra_script
from unet.runs.run import run_job


@hydra_script("train")
def main(config: DictConfig) -> float:
    """Train and evaluate into a run folder; return the score that a sweep compares."""
    from unet.training.train import train  # imports torch, which --help does not need

    return run_job(train, config)


if __name__ == "__main__":
    main()
