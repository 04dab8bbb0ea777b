"""Check a data set before it is trained on: its files, what is wrong with them, what to try first."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.runs.cli import hydra_script


@hydra_script("check_data")
def main(config: DictConfig) -> None:
    """Check every file, once; exit with status 1 where something would stop a training."""
    sys.exit(not check(config, HydraConfig.get().overrides.task))


def check(config: DictConfig, overrides: Sequence[str]) -> bool:
    """Print the report, write the copy that ``fix`` asks for, and return whether a training could go on.

    Args:
        config: as composed.
        overrides: those it was composed from, for the commands that are printed.
    """
    from rich.console import Console

    from unet.data_check.findings import ERROR, collect_findings
    from unet.data_check.print_report import print_findings, print_report
    from unet.data_check.suggest import STRUCTURES, data_structure, format_commands, suggest_settings
    from unet.data_check.survey import survey_data
    from unet.training.build import build_data
    from unet.training.config_limits import check_limits

    check_limits(config)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)
    given = [override for override in overrides if not override.startswith("fix=")]
    named = name_classes(config)
    found = survey_data(build_data(config).source, named)
    asked = asks(config)
    wrong = collect_findings(found, asked)
    what = suggest_settings(found)
    print_report(console, config.data.name, found, wrong, what)
    if config.fix is not None:
        from unet.data_check.corrected_copy import write_corrected_copy

        written = write_corrected_copy(found, Path(str(config.fix)))
        for sentence in written.exclusions:
            console.print(f"left out: {sentence}", markup=False)
        given = [*(key for key in given if not of_the_files(key)), f"data.root={config.fix}", *written.overrides]
        found = survey_data(written.source)
        wrong, what = collect_findings(found, asked), suggest_settings(found)
        console.print(f"The corrected copy, {config.fix}: {len(found.facts)} items", markup=False)
        print_findings(console, wrong)
    kind = data_structure(found) or STRUCTURES[-1]
    train, sweep = format_commands(given, what, kind)
    sound = all(finding.kind != ERROR for finding in wrong)
    console.print(f"{'Train' if sound else 'Once the errors are set right, train'}:\n  {train}", markup=False)
    console.print(
        f"Compare operators for {kind.name} objects; one seed proves little, add seed=range(6):", markup=False
    )
    console.print(f"  {sweep}\n  ({kind.reason}; docs/operators.md)", markup=False)
    return sound


def name_classes(config: DictConfig) -> bool:
    """Whether the user named the classes; where not, put in two that stand for any."""
    source = config.data.source
    if "classes" not in source or source.classes is not None or source.get("values") is not None:
        return True
    source.classes = ["background", "foreground"]
    return False


def asks(config: DictConfig) -> Any:
    """What the configured training asks of the data."""
    from unet.data_check.findings import TrainingRequirements

    stride, depth = config.model.stride, config.model.depth
    least = stride**depth if isinstance(stride, int) and isinstance(depth, int) else 1
    return TrainingRequirements(config.data.batch_size, config.data.samples_per_epoch, least)


def of_the_files(override: str) -> bool:
    """Is this about how the files of a folder are laid out, which the copy does in its own way?"""
    keys = ("root", "source.classes", "source.values", "source.mask_stem", "source.mode", "source.splits")
    return override.partition("=")[0].startswith(tuple(f"data.{key}" for key in keys))


if __name__ == "__main__":
    main()
