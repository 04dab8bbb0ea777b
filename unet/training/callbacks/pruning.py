"""Stop the jobs of a search that are worse than most others at the same epoch."""

from pathlib import Path
from statistics import median

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from unet.errors import UserError
from unet.io.atomic import read_json, write_json
from unet.io.run_folder import SWEEP

VALIDATIONS = "validations.json"
"""In a run's folder: the best validation score until each epoch, by the epoch."""
MIN_JOBS = 5
"""No job is stopped before so many others have reached its epoch."""


def pruning_reason(trainer: L.Trainer) -> str:
    """Return why the trainer's job was stopped by :class:`MedianPruning`; empty if it was not."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  (set by Lightning's connector)
    return next((callback.reason for callback in callbacks if isinstance(callback, MedianPruning)), "")


class MedianPruning(Callback):
    """A callback that stops a job whose best ``val/miou`` is below the median of the sweep's other jobs at its epoch.

    The job then ends as usual, with the evaluation of its best checkpoint. The first validation stops no job. After the
    median stopping rule of Golovin et al. 2017, Google Vizier, https://doi.org/10.1145/3097983.3098043, with the best
    scores until the epoch of all jobs that reached it.

    Args:
        folder: the run's folder, next to those of the other jobs.

    Attributes:
        reason: why the job was stopped; empty if it was not.

    Raises:
        UserError: the run is no job of a search.
    """

    def __init__(self, folder: Path):
        self.folder, self.reason = folder, ""
        if not read_json(folder.parent / SWEEP).get("search"):
            raise UserError(
                "prune=true: only in a search (-m hydra/sweeper=search), since a comparison needs complete runs; "
                "early_stopping=N stops a single run"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        path, epoch = self.folder / VALIDATIONS, trainer.current_epoch
        earlier = {key: value for key, value in read_json(path).items() if int(key) <= epoch}
        best = max(float(trainer.callback_metrics["val/miou"]), *earlier.values(), 0.0)
        write_json(path, {**earlier, str(epoch): best})
        can_stop = not trainer.should_stop and epoch + 1 >= (trainer.min_epochs or 0)
        others = [read_json(file) for file in self.folder.parent.glob(f"*/{VALIDATIONS}") if file != path]
        reached = [values[str(epoch)] for values in others if str(epoch) in values]
        if earlier and can_stop and len(reached) >= MIN_JOBS and best < median(reached):
            trainer.should_stop = True
            self.reason = f"val/miou {best:.4f} is below {median(reached):.4f}, the median of {len(reached)} other jobs"
            print(f"stopped after epoch {epoch + 1}: {self.reason}", flush=True)
