"""Check a data set before training: describe its files, list errors and warnings, suggest settings."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.runs.cli import hydra_script

LAYOUT_KEYS = ("classes", "values", "image", "mask", "channels", "mode", "splits")
LAYOUT = ("data.root", *(f"data.source.{key}" for key in LAYOUT_KEYS))
"""Keys of the layout of a folder's files, which differs in the corrected copy."""


@hydra_script("check_data")
def main(config: DictConfig) -> None:
    """Check every file; exit with status 1 where an error would stop a training."""
    sys.exit(not check(config, HydraConfig.get().overrides.task))


def check(config: DictConfig, overrides: Sequence[str]) -> bool:
    """Print the report, write the corrected copy of ``fix``, and return whether no error would stop a training.

    ``overrides`` are those of the config, for the commands that are printed.
    """
    from rich.console import Console

    from unet.data_check.findings import ERROR, TrainingRequirements, collect_findings
    from unet.data_check.print_report import print_findings, print_report
    from unet.data_check.suggest import STRUCTURES, data_structure, format_commands, suggest_settings
    from unet.data_check.survey import survey_data
    from unet.training.build import build_data
    from unet.training.config_limits import validate_config

    validate_config(config)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)
    overrides = [override for override in overrides if not override.startswith("fix=")]
    source = config.data.source
    named = "classes" not in source or source.classes is not None or source.get("values") is not None
    if not named:
        source.classes = ["background", "foreground"]
    data = survey_data(build_data(config).source, named)
    stride, depth = config.model.stride, config.model.depth
    min_size = stride**depth if isinstance(stride, int) and isinstance(depth, int) else 1
    training = TrainingRequirements(config.data.batch_size, config.data.samples_per_epoch, min_size)
    results, suggested = collect_findings(data, training), suggest_settings(data)
    print_report(console, config.data.name, data, results, suggested)
    if config.fix is not None:
        from unet.data_check.corrected_copy import write_corrected_copy

        copy = write_corrected_copy(data, Path(str(config.fix)))
        for message in copy.exclusions:
            console.print(f"left out: {message}", markup=False)
        overrides = [override for override in overrides if not override.startswith(LAYOUT)]
        overrides += [f"data.root={config.fix}", *copy.overrides]
        data = survey_data(copy.source)
        results, suggested = collect_findings(data, training), suggest_settings(data)
        console.print(f"The corrected copy, {config.fix}: {len(data.facts)} items", markup=False)
        print_findings(console, results)
    structure = data_structure(data) or STRUCTURES[-1]
    train, sweep = format_commands(overrides, suggested, structure)
    valid = all(finding.kind != ERROR for finding in results)
    console.print(f"{'Train' if valid else 'After correcting the errors, train'}:\n  {train}", markup=False)
    console.print(
        f"Compare operators for {structure.name} objects, with six seeds or more ('seed=range(6)'):", markup=False
    )
    console.print(f"  {sweep}\n  ({structure.reason}; docs/operators.md)", markup=False)
    return valid
