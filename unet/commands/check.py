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

    from unet.data_check.findings import ERROR, findings
    from unet.data_check.print_report import print_findings, print_report
    from unet.data_check.suggest import STRUCTURES, commands, structure_of, suggestions
    from unet.data_check.survey import survey
    from unet.training.build import build_data
    from unet.training.config_limits import check_limits

    check_limits(config)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)
    given = [override for override in overrides if not override.startswith("fix=")]
    named = ensure_class_names(config)
    found = survey(build_data(config).source, named)
    asked = asks(config)
    wrong = findings(found, asked)
    what = suggestions(found)
    print_report(console, config.data.name, found, wrong, what)
    if config.fix is not None:
        from unet.data_check.corrected_copy import correct

        written = correct(found, Path(str(config.fix)))
        for sentence in written.left_out:
            console.print(f"left out: {sentence}", markup=False)
        given = [*(key for key in given if not is_layout_override(key)), f"data.root={config.fix}", *written.overrides]
        found = survey(written.source)
        wrong, what = findings(found, asked), suggestions(found)
        console.print(f"The corrected copy, {config.fix}: {len(found.facts)} items", markup=False)
        print_findings(console, wrong)
    kind = structure_of(found) or STRUCTURES[-1]
    train, sweep = commands(given, what, kind)
    sound = all(finding.kind != ERROR for finding in wrong)
    console.print(f"{'Train' if sound else 'Once the errors are set right, train'}:\n  {train}", markup=False)
    console.print(
        f"Compare operators for {kind.name} objects; one seed proves little, add seed=range(6):", markup=False
    )
    console.print(f"  {sweep}\n  ({kind.reason}; docs/operators.md)", markup=False)
    return sound


def ensure_class_names(config: DictConfig) -> bool:
    """Whether the user named the classes; where not, put in two that stand for any."""
    source = config.data.source
    if "classes" not in source or source.classes is not None or source.get("values") is not None:
        return True
    source.classes = ["background", "foreground"]
    return False


def asks(config: DictConfig) -> Any:
    """What the configured training asks of the data."""
    from unet.data_check.findings import Training

    stride, depth = config.model.stride, config.model.depth
    least = stride**depth if isinstance(stride, int) and isinstance(depth, int) else 1
    return Training(config.data.batch_size, config.data.samples_per_epoch, least)


def is_layout_override(override: str) -> bool:
    """Is this about how the files of a folder are laid out, which the copy does in its own way?"""
    keys = ("root", "source.classes", "source.values", "source.mask_stem", "source.mode", "source.splits")
    return override.partition("=")[0].startswith(tuple(f"data.{key}" for key in keys))


if __name__ == "__main__":
    main()
