"""Checkpoints that are written atomically, and a training that stops between two steps on a signal."""

import io
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
from unet.errors import Interrupted, UserError
from unet.inference.checkpoint import read_checkpoint
from unet.io.atomic import atomic_write
from unet.io.run_folder import LAST


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are written atomically, and read without executing code.

    A file is written beside its target, flushed to the disk and renamed, so that SIGKILL or a full disk leaves the old
    one intact. Lightning writes to $TMPDIR, and copies if that is another file system (Lightning issue 21253).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, state in checkpoint.get("callbacks", {}).items():
            require_plain(name, state)
        with atomic_write(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | os.PathLike, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return plain values and tensors on the CPU. Raises UserError if the file is damaged or contains code."""
        return read_checkpoint(Path(path))


def require_plain(callback: str, state: Any) -> None:
    """Raise UserError unless the state of a callback can be read again without executing code."""
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception as error:  # pickle raises errors of many types
        raise UserError(
            f"trainer.callbacks: the state of {callback} holds other objects than plain values and tensors, so the "
            f"checkpoint could not be read; convert them in its state_dict() ({type(error).__name__})"
        ) from None


class RelocatableCheckpoint(ModelCheckpoint):
    """Lightning's callback, which also finds its best checkpoint in a run folder that was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))

        def moved_path(path: str) -> str:
            return path and str(folder / Path(path).name)

        if Path(moved_path(state_dict["best_model_path"])).is_file():  # else a new run from another run's checkpoint
            paths = ("best_model_path", "kth_best_model_path", "last_model_path")
            scores = {moved_path(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | {key: moved_path(state_dict[key]) for key in paths}
            state_dict |= {"dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state_dict)


def best_and_last(folder: Path, monitor: str) -> list[Callback]:
    """Return callbacks that save ``best.ckpt`` by the monitored metric, and ``last.ckpt`` after every epoch."""
    best = RelocatableCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False)
    last = RelocatableCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return [best, last]


class ValidateLast(Callback):
    """A callback that validates at the end of the training, so that every run has a ``best.ckpt``."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs  # type: ignore
        if is_last_step(trainer) or (is_last_epoch and batch_idx + 1 == trainer.num_training_batches):
            trainer.check_val_every_n_epoch = 1  # type: ignore[attr-defined]
            trainer.should_stop = True  # Lightning validates before it stops


class SaveOnError(Callback):
    """A callback that saves ``last.ckpt`` after an error, in the state of the last optimizer step.

    A forward or backward pass changes only buffers (running statistics), of which copies are made, and the counters of
    the loops. Nothing is saved after an error in the optimizer step, because partly updated weights do not resume
    exactly, nor with several processes, which would wait for each other; the last epoch's checkpoint remains then.
    """

    def __init__(self, folder: Path):
        self.path = folder / LAST
        self.loops: dict[str, Any] | None = None  # the counters after the last optimizer step; None: nothing to save
        self.buffers: list[Tensor] = []  # of the module; listing them takes longer than copying them
        self.copies: list[Tensor] = []
        self.is_averaged = False  # whether the module has the averaged weights, as in validation

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not is_optimizer_step(trainer, batch_idx):
            return
        if not self.buffers:
            self.buffers = list(pl_module.buffers())
            self.copies = [buffer.clone() for buffer in self.buffers]
        for copy, buffer in zip(self.copies, self.buffers, strict=True):
            copy.copy_(buffer)
        self.loops = loop_state(trainer, batch_idx)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.loops = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.is_averaged = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.is_averaged = False
        self.loops = None  # other callbacks may count this validation: it must not be repeated

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        is_error = isinstance(exception, Exception) and not isinstance(exception, Interrupted)
        is_fitting = trainer.state.fn == TrainerFn.FITTING  # else the best weights may be loaded already
        if is_error and is_fitting and trainer.world_size == 1 and all(map(is_finite, pl_module.parameters())):
            with suppress(Exception):  # the first error is the one to report
                self.save(trainer)

    def save(self, trainer: L.Trainer) -> bool:
        """Save the state of the last optimizer step and return True, or False if it is unknown; ends the training."""
        module = trainer.lightning_module
        if self.loops is None:
            return False
        if self.is_averaged:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, module)  # restores the weights
            self.is_averaged = False
        for buffer, copy in zip(self.buffers, self.copies, strict=True):
            buffer.copy_(copy)
        trainer.fit_loop.load_state_dict(self.loops)
        trainer.save_checkpoint(self.path)
        return True


def is_optimizer_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether the weights were updated after this batch, instead of only accumulating gradients."""
    done = batch_idx + 1
    return done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches


def is_last_step(trainer: L.Trainer) -> bool:
    """Return whether ``max_steps`` is reached."""
    return trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps


def is_validation_due(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether a validation follows this batch."""
    every, between = trainer.check_val_every_n_epoch, trainer.val_check_batch  # type: ignore[attr-defined]
    due = every is None or (trainer.current_epoch + 1) % every == 0
    done = (trainer.fit_loop.total_batch_idx if every is None else batch_idx) + 1
    return trainer.enable_validation and due and isinstance(between, int) and done % between == 0


def loop_state(trainer: L.Trainer, batch_idx: int) -> dict[str, Any] | None:
    """Return the state of the loops in on_train_batch_end with which a resumed run continues exactly.

    Lightning would skip the validation that follows a checkpoint. If one is due, the state says that its first batch
    has started, so that the resumed run repeats it. The validation that :class:`ValidateLast` adds would be skipped
    even so: None.
    """
    regular = is_validation_due(trainer, batch_idx)
    if is_last_step(trainer) or (trainer.should_stop and not regular):
        return None
    state = trainer.fit_loop.state_dict()
    if not regular:
        return state
    for count in (state["epoch_loop.batch_progress"][span] for span in ("total", "current")):
        count["completed"] = count["processed"]
    started = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    state["epoch_loop.val_loop.batch_progress"] |= {"total": started, "current": dict(started), "is_last_batch": False}
    return state


class StopOnSignal(Callback):
    """A callback that finishes the step on SIGINT or SIGTERM, saves ``last.ckpt`` and raises :class:`Interrupted`.

    The run resumes exactly; a validation is stopped and repeated. A second SIGINT stops at once, with the checkpoint of
    the last epoch; further SIGTERMs, which schedulers repeat, are ignored. The hooks of ``save_on_error``, which saves
    the state, must be called before those of this callback.
    """

    def __init__(self, save_on_error: SaveOnError):
        self.save_on_error = save_on_error
        self.received: int | None = None
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.handlers = {signum: signal.signal(signum, self.handle) for signum in (signal.SIGINT, signal.SIGTERM)}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
            name = signal.Signals(signum).name
            print(f"\n{name}: saving a checkpoint after this step; Ctrl-C stops at once", flush=True)
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if is_optimizer_step(trainer, batch_idx):
            if trainer.world_size > 1:  # let all processes stop after the same step
                is_stopping = trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
                self.received = self.received or (signal.SIGTERM if is_stopping else None)
            self.save_and_raise(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        is_fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if is_fitting and trainer.world_size == 1:  # several may have different numbers of batches
            self.save_and_raise(trainer)

    def save_and_raise(self, trainer: L.Trainer) -> None:
        """Save and raise :class:`Interrupted` after a signal, unless nothing can be saved yet."""
        if self.received is not None and self.save_on_error.save(trainer):
            raise Interrupted(self.received, trainer.global_step, self.save_on_error.path)

    def restore(self) -> None:
        """Restore the signal handlers."""
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)
        self.handlers = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restore()
        if self.received is not None:  # during the last validation: the training is complete and saved
            raise Interrupted(self.received, trainer.global_step, self.save_on_error.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.restore()
