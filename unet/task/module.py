"""The LightningModule: training and evaluation steps, optimizer and schedule."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from unet.analysis.nonfinite import first_nonfinite
from unet.errors import UserError
from unet.inference.tiling import predict_logits
from unet.network.normalization import Normalize, adjust_logits
from unet.task.losses import deep_loss
from unet.task.metrics import ConfusionMatrix, count_by_image
from unet.task.optimizers import OPTIMIZERS
from unet.task.parameters import freeze_parts, parameter_groups
from unet.task.schedules import make_schedule

ASYNCHRONOUS = {"cuda"}
"""Device types that execute asynchronously: reading a value waits for all operations queued before it."""


class SegmentationTask(L.LightningModule):
    """A network with its loss and optimizer, trained on {"image": (B, C, *S), "target": (B, *S)}.

    Args:
        normalize: applied on the device, so that 8-bit images are transferred as 8-bit.
        optim: the settings of the optimizer and its schedule, ``optim`` of configs/train.yaml.
        description: plain values saved in every checkpoint, from which network and preprocessing are rebuilt.
        seed: seeds dropout at every batch, so that a resumed run draws the same numbers.
        tile, overlap: tiles of the evaluation, see :func:`unet.inference.tiling.predict_logits`.
        log_weights: one number per class, which :meth:`adjust_logits` subtracts from the logits; None: zeros.

    Attributes:
        confusion, num_evaluated: the confusion matrix and the number of images of the current or last evaluation.
        image_counts: the confusion counts (B, K, K) of its batches on the CPU; of a validation during training, none.
        loaded: names of the network's tensors that come from another run's checkpoint.
    """

    log_weights: Tensor

    def __init__(
        self,
        net: nn.Module,
        normalize: Normalize,
        loss: Callable[[Tensor, Tensor], Tensor],
        classes: Sequence[str],
        optim: Mapping[str, Any],
        description: Mapping[str, Any],
        seed: int,
        tile: Sequence[int] | None = None,
        overlap: float = 0.25,
        log_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        self.net, self.normalize, self.loss = net, normalize, loss
        self.classes, self.optim, self.description = list(classes), dict(optim), dict(description)
        self.seed = seed
        self.frozen = freeze_parts(net, self.optim.get("freeze"))
        self.loaded: Collection[str] = ()
        self.tile, self.overlap = tile, overlap
        self.confusion, self.num_evaluated = ConfusionMatrix(len(classes)), 0
        self.image_counts: list[Tensor] = []
        shift = torch.tensor(log_weights if log_weights is not None else [0.0] * len(classes))
        self.register_buffer("log_weights", shift, persistent=False)
        self.pending_loss: tuple[Tensor, Any, Tensor, str] | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the frozen parts, whose batch norm keeps its statistics and dropout is off."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (B, K, *S) of images (B, C, *S) that are not normalised yet."""
        return self.net(self.normalize(image))

    def predict(self, image: Tensor) -> Tensor:
        """Return the logits of images in evaluation, by tiles if ``tile`` is set."""
        net: Any = self.net
        return predict_logits(self, image, self.tile, self.overlap, net.total_stride)

    def predict_labels(self, logits: Tensor) -> Tensor:
        """Return the labels (B, *S) of logits (B, K, *S): the largest adjusted logit."""
        return self.adjust_logits(logits).max(1).indices  # argmax takes several times as long on a CPU

    def adjust_logits(self, logits: Tensor) -> Tensor:
        """Return logits (B, K, *S) minus the log weights."""
        return adjust_logits(logits, self.log_weights)

    def on_train_batch_start(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        key = np.random.SeedSequence([self.seed, self.global_rank, self.current_epoch, batch_idx])
        torch.manual_seed(int(key.generate_state(1)[0]))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        self.check_previous_loss()
        net: Any = self.net
        output = self(batch["image"])
        levels = output if isinstance(output, list) else [output]  # several with model.deep_supervision
        loss, logits = deep_loss(self.loss, levels, batch["target"], net.strides), levels[0]
        value, step = loss.detach(), f"step {self.global_step} (epoch {self.current_epoch})"
        if self.device.type in ASYNCHRONOUS and self.fused and self.trainer.world_size == 1:
            # Reading the loss now would wait for the device; meanwhile the optimizer skips a non-finite step.
            self.optimizers(use_pl_optimizer=False).found_inf = (~torch.isfinite(value)).float()  # type: ignore
            copy = value.to("cpu", non_blocking=True)
            copied = torch.cuda.current_stream(value.device).record_event() if value.is_cuda else None
            self.pending_loss = copy, copied, batch["image"], step
        else:
            self.require_finite(value, batch["image"], step)
        self.log("train/loss", value, prog_bar=True, batch_size=len(logits))
        return {"loss": loss, "logits": logits.detach()}

    def check_previous_loss(self) -> None:
        """Raise UserError if the pending loss is not finite."""
        if self.pending_loss is not None:
            loss, copied, image, step = self.pending_loss
            if copied is not None:
                copied.synchronize()
            self.require_finite(loss, image, step)
            self.pending_loss = None  # not reset after an error: the buffers are not finite and must not be saved

    def require_finite(self, loss: Tensor, image: Tensor, step: str) -> None:
        """Raise UserError, with the first layer whose output for ``image`` is not finite, unless ``loss`` is finite."""
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} at {step}: {first_nonfinite(self.net, self.normalize(image))}; "
                f"use a lower optim.lr, trainer.gradient_clip_val=1, or trainer.precision=32-true"
            )

    def on_validation_epoch_start(self) -> None:
        self.confusion, self.num_evaluated = ConfusionMatrix(len(self.classes), self.device), 0
        self.image_counts = []

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.log_scores("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self.log_scores("test")

    def evaluate(self, batch: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Add a batch to the confusion matrix, log its loss, and return its logits."""
        logits = self.predict(batch["image"])
        loss = self.loss(logits, batch["target"])
        counts = count_by_image(self.predict_labels(logits), batch["target"], len(self.classes))
        self.confusion.counts += counts.sum(0)
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.image_counts.append(counts.cpu())
        self.num_evaluated += len(logits)
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True, batch_size=len(logits))
        return {"logits": logits}

    def log_scores(self, split: str) -> None:
        """Log the metrics of a split."""
        scores = self.confusion.scores(self.classes)
        self.log_dict({f"{split}/{name}": value for name, value in scores.items()})

    @property
    def fused(self) -> bool:
        """Whether one kernel updates all weights; not for float16, which it unscales after clipping."""
        return self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"

    def configure_optimizers(self) -> dict[str, Any]:
        net: Any = self.net
        name, lr = self.optim["name"], self.optim["lr"]
        groups = parameter_groups(net, lr, self.optim.get("init_lr_factor"), self.loaded, name == "muon")
        settings = {key: self.optim[key] for key in ("lr", "weight_decay", "betas")}
        optimizer = OPTIMIZERS[name](groups, **settings, fused=self.fused or None)
        steps = self.trainer.estimated_stepping_batches
        scheduler = make_schedule(self.optim["schedule"], optimizer, steps, self.optim["warmup"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        """Clip gradients by value or norm; Lightning refuses to clip for any fused optimizer."""
        if gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_previous_loss()
        checkpoint["description"] = self.description
