"""Try a trained network, or compare two, on a local page; docs/demo.md says more."""

from omegaconf import DictConfig

from unet.runs.cli import hydra_script


@hydra_script("demo")
def main(config: DictConfig) -> None:
    """Open the page and serve it until Ctrl-C."""
    from unet.demo.app import launch_demo

    launch_demo(config)


if __name__ == "__main__":
    main()
