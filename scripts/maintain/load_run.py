"""A finished run, read back from its folder: the trained network and the data it was trained on."""

from pathlib import Path

from unet.data import SegmentationData
from unet.data.targets import check_targets
from unet.errors import UserError
from unet.io.run_folder import CHECKPOINTS, run_config
from unet.task.module import SegmentationTask
from unet.training.train import build_data, build_task, load_best


def load_run(folder: Path) -> tuple[SegmentationTask, SegmentationData]:
    """The task with the best checkpoint's weights, in evaluation mode, and its checked data.

    Raises:
        UserError: no finished run there, or data that is gone.
    """
    config = run_config(folder)
    check_targets(config.data)
    data = build_data(config)
    data.scan()
    task = build_task(config, data)
    if not load_best(task, folder):
        raise UserError(f"{folder / CHECKPOINTS}: no checkpoint here; expected the folder of a finished run")
    return task.eval(), data
