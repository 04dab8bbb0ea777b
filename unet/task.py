"""The LightningModule: one shared step, scores from one confusion matrix a split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from unet.errors import UserError
from unet.finite import first_nonfinite
from unet.inference import predict
from unet.metrics import ConfusionMatrix
from unet.schedules import make_schedule
from unet.segmenter import Normalize, adjust_logits


class SegmentationTask(L.LightningModule):
    """Trains a network on {"image": (B, C, *S), "target": (B, *S)} and scores it.

    Args:
        net: image -> logits.
        normalize: applied to the image on the device, so that 8-bit pixels travel as 8-bit.
        loss: (logits, target) -> scalar.
        classes: class names.
        optim: ``lr``, ``weight_decay``, ``betas``, ``schedule`` and ``warmup``.
        description: plain values kept in every checkpoint, enough to rebuild network and preprocessing.
        seed: keys what the network draws while training (dropout), batch by batch: a resumed run draws the same.
        tile, overlap: how evaluation sees an image, see :func:`unet.inference.predict`.
        log_weights: one number a class, which :meth:`decide` takes from the logits; None: zeros.
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
        self.tile, self.overlap = tile, overlap
        self.confusion = ConfusionMatrix(len(classes))
        shift = torch.tensor(log_weights if log_weights is not None else [0.0] * len(classes))
        self.register_buffer("log_weights", shift, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """image as stored (B, C, *S) -> logits (B, K, *S)."""
        return self.net(self.normalize(image))

    def predict(self, image: Tensor) -> Tensor:
        """:meth:`forward` in evaluation: tile by tile where that is chosen."""
        net: Any = self.net
        return predict(self, image, self.tile, self.overlap, net.total_stride)

    def decide(self, logits: Tensor) -> Tensor:
        """logits (B, K, *S) -> labels (B, *S): the largest, less the log weights."""
        return self.adjust_logits(logits).argmax(1)

    def adjust_logits(self, logits: Tensor) -> Tensor:
        """Logits (B, K, *S) less the log weights: their softmax is what :meth:`decide` compares."""
        return adjust_logits(logits, self.log_weights)

    def on_train_batch_start(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        key = np.random.SeedSequence([self.seed, self.global_rank, self.current_epoch, batch_idx])
        torch.manual_seed(int(key.generate_state(1)[0]))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        logits = self(batch["image"])
        loss = self.loss(logits, batch["target"])
        if not torch.isfinite(loss):
            where = first_nonfinite(self.net, self.normalize(batch["image"]))
            raise UserError(
                f"the loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}): {where}; "
                f"lower optim.lr, set trainer.gradient_clip_val, or try trainer.precision=32-true"
            )
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(logits))
        return {"loss": loss, "logits": logits.detach()}

    def on_validation_epoch_start(self) -> None:
        self.confusion = ConfusionMatrix(len(self.classes), self.device)

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
        logits = self.predict(batch["image"])
        loss = self.loss(logits, batch["target"])
        self.confusion.update(self.decide(logits), batch["target"])
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True, batch_size=len(logits))
        return {"logits": logits}

    def log_scores(self, split: str) -> None:
        scores = self.confusion.scores(self.classes)
        self.log_dict({f"{split}/{name}": value for name, value in scores.items()})

    def configure_optimizers(self) -> dict[str, Any]:
        # One kernel for all weights. It unscales gradients itself, which float16's loss scaling forbids when they are
        # also clipped.
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"
        settings = {key: self.optim[key] for key in ("lr", "weight_decay", "betas")}
        optimizer = torch.optim.AdamW(self.parameters(), **settings, fused=fused or None)
        steps = self.trainer.estimated_stepping_batches
        scheduler = make_schedule(self.optim["schedule"], optimizer, steps, self.optim["warmup"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        """Clip as the trainer is told to. Lightning's own refuses every fused optimizer, even without loss scaling."""
        if self.trainer.precision == "16-mixed" or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["description"] = self.description
