"""Checkpoints that are whole or absent, and a training that stops between two steps when it is told to."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from unet.analysis.nonfinite import is_finite
from unet.errors import Interrupted
from unet.inference.checkpoint import read_checkpoint
from unet.io.atomic import atomic_write
from unet.io.run_folder import LAST


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames: SIGKILL or a full disk leaves the old file whole.

    Reads nothing that could run code.

    Lightning stages in $TMPDIR, and across file systems its last move is a copy (Lightning issue 21253).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | os.PathLike, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Plain values and tensors, on the CPU. Raises UserError where the file is damaged or holds code."""
        return read_checkpoint(Path(path))


class RelocatableCheckpoint(ModelCheckpoint):
    """Lightning's, which would forget its best score where the run's folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath))
        best = here / Path(state_dict["best_model_path"]).name
        if not best.is_file():  # a new run, which begins with another's weights
            super().load_state_dict(state_dict)
            return
        scores = {str(here / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
        kth, last = (state_dict[key] for key in ("kth_best_model_path", "last_model_path"))
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": str(best),
            "best_k_models": scores,
            "kth_best_model_path": kth and str(here / Path(kth).name),
            "last_model_path": last and str(here / Path(last).name),
        }
        super().load_state_dict(state_dict | moved)


def best_and_last(folder: Path, monitor: str) -> list[Callback]:
    """``best.ckpt`` by the monitored score, and ``last.ckpt`` after every epoch."""
    best = RelocatableCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False)
    last = RelocatableCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return [best, last]


class ValidateLast(Callback):
    """Make a training end with a validation, wherever it ends: whatever was trained has a ``best.ckpt``."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs  # type: ignore
        if all_steps_done(trainer) or (last_epoch and batch_idx + 1 == trainer.num_training_batches):
            trainer.check_val_every_n_epoch = 1  # type: ignore[attr-defined]
            trainer.should_stop = True  # with which Lightning validates before it ends


class SaveOnError(Callback):
    """When an error ends the training, save ``last.ckpt`` as of the last whole step, from which the run is exact.

    A forward or backward pass that failed has changed nothing but buffers (running statistics), of which a copy is
    kept, and the loops' counters. An error while the optimizer updates the weights is not saved: what is half updated
    would not resume exactly. Nor is one where several processes train together, which would wait for each other. The
    checkpoint of the last epoch stays then.
    """

    def __init__(self, folder: Path):
        self.path = folder / LAST
        self.loops: dict[str, Any] | None = None  # the counters after the last whole step; None: nothing to be saved
        self.buffers: list[Tensor] = []  # the module's own, found once: looking for them takes longer than the copy
        self.copies: list[Tensor] = []
        self.averaged = False  # whether the weights stand in for their moving average, as they do in validation

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not whole_step(trainer, batch_idx):
            return
        if not self.buffers:
            self.buffers = list(pl_module.buffers())
            self.copies = [buffer.clone() for buffer in self.buffers]
        for copy, buffer in zip(self.copies, self.buffers, strict=True):
            copy.copy_(buffer)
        self.loops = counters(trainer, batch_idx)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.loops = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.averaged = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.averaged = False
        self.loops = None  # from here on, other callbacks may have counted this validation: it must not come again

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        ended = isinstance(exception, Exception) and not isinstance(exception, Interrupted)
        fitting = trainer.state.fn == TrainerFn.FITTING  # else the best weights may be in place already
        if ended and fitting and trainer.world_size == 1 and all(map(is_finite, pl_module.parameters())):
            with suppress(Exception):  # the error that ends the run is the one to hear of; the last checkpoint is whole
                self.save(trainer)

    def save(self, trainer: L.Trainer) -> bool:
        """Save what the last whole step left, after which the training cannot go on; False where that is not known."""
        module = trainer.lightning_module
        if self.loops is None:
            return False
        if self.averaged:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, module)  # puts the weights back
            self.averaged = False
        for buffer, copy in zip(self.buffers, self.copies, strict=True):
            buffer.copy_(copy)
        trainer.fit_loop.load_state_dict(self.loops)
        trainer.save_checkpoint(self.path)
        return True


def whole_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the weights were updated after this batch, and not only gradients gathered."""
    done = batch_idx + 1
    return done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches


def all_steps_done(trainer: L.Trainer) -> bool:
    return trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps


def validates(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a validation follows this batch."""
    every, between = trainer.check_val_every_n_epoch, trainer.val_check_batch  # type: ignore[attr-defined]
    due = every is None or (trainer.current_epoch + 1) % every == 0
    done = (trainer.fit_loop.total_batch_idx if every is None else batch_idx) + 1
    return trainer.enable_validation and due and isinstance(between, int) and done % between == 0


def counters(trainer: L.Trainer, batch_idx: int) -> dict[str, Any] | None:
    """The loops' state in on_train_batch_end, such that a run resumed from it does next what comes next here.

    A checkpoint saved before a validation would be taken for one saved after it, and the resumed run would leave that
    validation out, and perhaps its best epoch. So where one follows, the state says that its first batch has begun, and
    the resumed run begins it anew. Before the validation that :class:`ValidateLast` adds even that would be left out:
    None.
    """
    regular = validates(trainer, batch_idx)
    if all_steps_done(trainer) or (trainer.should_stop and not regular):
        return None
    state = trainer.fit_loop.state_dict()
    if not regular:
        return state
    for count in (state["epoch_loop.batch_progress"][span] for span in ("total", "current")):
        count["completed"] = count["processed"]
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    state["epoch_loop.val_loop.batch_progress"] |= {"total": begun, "current": dict(begun), "is_last_batch": False}
    return state


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM finish the current step, save ``last.ckpt``, and raise :class:`Interrupted`.

    Between two steps nothing is half updated, so the saved run resumes exactly; a validation is broken off and comes
    again. A second SIGINT ends at once, with the checkpoint of the last epoch; SIGTERM may come again, as schedulers
    repeat it. Nothing is lost either way.

    Args:
        last_step: knows what there is to be saved; its hooks have to be called before those of this callback.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, last_step: SaveOnError):
        self.last_step = last_step
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = {signum: signal.signal(signum, self.handle) for signum in self.signals}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
            print(f"\n{signal.Signals(signum).name}: saving after this step; Ctrl-C then stops at once", flush=True)
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if whole_step(trainer, batch_idx):
            if trainer.world_size > 1:
                self.agree(trainer)
            self.stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *arguments: Any, **named: Any) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.world_size == 1:  # several wait for the next step: they may have unlike shares
            self.stop(trainer)

    def stop(self, trainer: L.Trainer) -> None:
        """Save and raise, if told to; where nothing can be saved now, at the next occasion."""
        if self.received is not None and self.last_step.save(trainer):
            raise Interrupted(self.received, trainer.global_step, self.last_step.path)

    def agree(self, trainer: L.Trainer) -> None:
        """Of several processes that train together, all stop after the same step where one was told to."""
        told = trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
        if told and self.received is None:
            self.received = signal.SIGTERM

    def restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restore()
        if self.received is not None:  # during the last validation: all is trained and saved
            raise Interrupted(self.received, trainer.global_step, self.last_step.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.restore()
