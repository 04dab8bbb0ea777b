"""The advice of the data check for an error that stops a training or an evaluation."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unet.data import SegmentationData
from unet.data.label_map import MaskError
from unet.data.samples import evenly_spaced
from unet.data.source import Item, Source
from unet.errors import UserError
from unet.runs.cli import program_name
from unet.runs.run_names import as_override

MAX_MASKS = 200  # number of masks that are read to tell what an error in one of them means


def scan_data(data: SegmentationData, config: DictConfig) -> None:
    """Read and check every item and what the training needs of them. Raises UserError with the data check's advice."""
    with check_advice(data, config):
        data.read()
    data.scan()


@contextmanager
def check_advice(data: SegmentationData, config: DictConfig) -> Iterator[None]:
    """Add the command of the data check to an error message about the data.

    If an error is about the values of a mask, the message is that of the data check, from up to ``MAX_MASKS`` masks.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if isinstance(error, MaskError):
            text = mask_advice(data.source) or text
        raise UserError(f"{text}; to check all files: {check_command(config)}") from error


def mask_advice(source: Source) -> str | None:
    """Return the first error that the data check finds in the values of the masks, with the number of files."""
    from unet.data_check.findings import ERROR, find_unmapped_values  # import scikit-image
    from unet.data_check.survey import Survey, read_items

    items: list[tuple[str, Item]] = [(split, item) for split, members in source.items.items() for item in members]
    chosen = [items[index] for index in evenly_spaced(len(items), MAX_MASKS)]
    survey = Survey(source, read_items(chosen, with_images=False), [])
    finding = next((finding for finding in find_unmapped_values(survey) if finding.kind == ERROR), None)
    if finding is None:
        return None
    if not finding.files:
        return finding.text
    number = len(finding.files)
    return f"{finding.files[0]}{f' and {number - 1} more' if number > 1 else ''}: {finding.text}"


def check_command(config: DictConfig) -> str:
    """Return the command that checks the data of a run, quoted for bash."""
    overrides: Sequence[str] = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    overrides = [override for override in overrides if override.startswith(("data=", "data."))]
    if not overrides:
        overrides = [f"data={config.data.name}", as_override("data.root", config.data.get("root"))]
    return f"{program_name('check')} {shlex.join(overrides)}"
