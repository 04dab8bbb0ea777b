"""Try a trained network, or compare two, in the browser; see docs/demo.md."""

from omegaconf import DictConfig

from unet.runs.cli import hydra_script


@hydra_script("demo")
def main(config: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    from unet.demo.app import launch_demo

    launch_demo(config)
