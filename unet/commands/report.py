"""Report on a sweep: which levels are better, equal or undecided, and at what cost; see docs/report.md."""

from pathlib import Path

from omegaconf import DictConfig

from unet.runs.cli import hydra_script, require_keys


@hydra_script("report", positional="folder")
def main(config: DictConfig) -> None:
    """Write report.html, report.md and results.csv into the sweep's folder and print the conclusions."""
    require_keys(config, ["folder"], "report")

    from unet.report import analyze, write_report
    from unet.report.summary_text import summary_lines

    analysis = analyze(Path(str(config.folder)).expanduser(), config.metric, config.tune, config.margin)
    print(write_report(analysis), *summary_lines(analysis), sep="\n")
