"""Try a trained network, or compare two, in the browser; see docs/demo.md."""

from omegaconf import DictConfig

from unet.runs.cli import hydra_script, require_keys


@hydra_script("demo")
def main(config: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    require_keys(config, ["ckpt"], "demo")

    from unet.demo.app import launch_demo
    from unet.training.config_limits import POSITIVE, check_values, integer_range

    check_values(config, {"port": integer_range(0, 2**16 - 1), "max_upload_mb": POSITIVE, "max_megapixels": POSITIVE})
    launch_demo(config)
