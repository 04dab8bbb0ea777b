"""Print the validation scores of runs against the seconds of their training."""

from pathlib import Path

from omegaconf import DictConfig

from unet.runs.cli import hydra_script, require_keys


@hydra_script("curve", positional="folder")
def main(config: DictConfig) -> None:
    """Print one line per validation of every run in the folder."""
    from unet.report.score_curve import find_runs, format_curve, read_curve
    from unet.training.config_limits import check_values, fraction, or_null

    require_keys(config, ["folder"], "curve")
    check_values(config, {"target": or_null(fraction("a score"))})
    for run in find_runs(Path(str(config.folder)).expanduser()):
        print(format_curve(run, read_curve(run), config.target))
