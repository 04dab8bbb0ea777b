"""Checkpoints that are whole or absent, and a training that stops between two steps when it is told to."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from unet.errors import Interrupted
from unet.record import whole

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames: SIGKILL or a full disk leaves the old file whole.

    Lightning stages in $TMPDIR, and across file systems its last move is a copy (Lightning issue 21253).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            torch.save(checkpoint, file)


def best_and_last(folder: Path, monitor: str) -> list[Callback]:
    """``best.ckpt`` by the monitored score, and ``last.ckpt`` after every epoch."""
    best = ModelCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return [best, last]


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM finish the current step, save ``last.ckpt``, and raise :class:`Interrupted`.

    Between two steps nothing is half updated, so the saved run resumes exactly. A second signal ends at once, with the
    checkpoint of the last epoch. Nothing is lost either way.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, folder: Path):
        self.path = folder / LAST
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = {signum: signal.signal(signum, self.handle) for signum in self.signals}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum
        print(f"\n{signal.Signals(signum).name}: saving after this step; once more stops at once", flush=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, batches = batch_idx + 1, trainer.num_training_batches
        whole = done % trainer.accumulate_grad_batches == 0 or done == batches
        # After the very last step only the validation is left: it runs, and on_train_end stops.
        last = done == batches and trainer.current_epoch + 1 == trainer.max_epochs
        if self.received is not None and whole and not last:
            trainer.save_checkpoint(self.path)
            raise Interrupted(self.received, trainer.global_step, self.path)

    def restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restore()
        if self.received is not None:  # during the last validation: all is trained and saved
            raise Interrupted(self.received, trainer.global_step, self.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.restore()
