"""Progress of a training in the terminal, and its throughput."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from unet.io.run_folder import format_duration


class Progress(Callback):
    """A callback that prints one line per epoch and measures the throughput of training, with loading, in samples/s.

    Attributes:
        samples, seconds: number of samples trained on, over all devices, and the time; a resumed run continues them.
        earlier: seconds, with validation, of the run before the checkpoint that it was resumed from.
    """

    def __init__(self) -> None:
        self.samples, self.seconds, self.earlier = 0, 0.0, 0.0
        self.mark = self.begin = time.perf_counter()
        self.first_epoch = 0

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def spent(self) -> float:
        """Return the seconds since the training began, with validation and with the earlier parts of a resumed run."""
        return self.earlier + time.perf_counter() - self.begin

    @property
    def state_key(self) -> str:
        return "progress"

    def state_dict(self) -> dict[str, float]:
        return {"samples": self.samples, "seconds": self.seconds, "spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.samples, self.seconds = int(state_dict["samples"]), state_dict["seconds"]
        self.earlier = state_dict["spent"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark = self.begin = time.perf_counter()
        self.first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark = time.perf_counter()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            pl_module.log("time/train_seconds", self.spent)  # beside the scores, for curves against time

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.samples += len(batch["target"]) * trainer.world_size
        self.seconds += now - self.mark
        self.mark = now
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("time/samples_per_second", self.samples_per_second)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: trainer.callback_metrics.get(name) for name in ("train/loss", "val/loss", "val/miou")}
        scores = "  ".join(f"{name} {float(value):.4f}" for name, value in values.items() if value is not None)
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
        total = remaining = ""
        if trainer.max_steps != -1:
            total = f", step {trainer.global_step}/{trainer.max_steps}"
        elif epochs > 0:
            seconds = (time.perf_counter() - self.begin) / (done - self.first_epoch) * (epochs - done)
            total, remaining = f"/{epochs}", f"  about {format_duration(seconds)} left"
        print(f"epoch {done}{total}  {scores}  {self.samples_per_second:.1f} samples/s{remaining}", flush=True)
