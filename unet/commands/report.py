"""Report on a sweep: which levels are better, equal or undecided, and at what cost; see docs/report.md."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unet.runs.cli import hydra_script, require_keys


@hydra_script("report", positional="folder", several=True)
def main(config: DictConfig) -> None:
    """Write report.html, report.md and results.csv into each sweep's folder and print the conclusions.

    Of several sweeps print one table of their answers.
    """
    require_keys(config, ["folder"], "report")

    from unet.report import analyze, write_report
    from unet.report.page import render_table
    from unet.report.several_sweeps import answer_table
    from unet.report.summary_text import summary_lines

    folders = list(config.folder) if OmegaConf.is_list(config.folder) else [config.folder]
    analyses = [analyze(Path(str(f)).expanduser(), config.metric, config.tune, config.margin) for f in folders]
    for analysis in analyses:
        print(write_report(analysis), *(summary_lines(analysis) if len(analyses) == 1 else []), sep="\n")
    if len(analyses) > 1:
        print(render_table(answer_table(analyses)))
