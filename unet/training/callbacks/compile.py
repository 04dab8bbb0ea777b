"""Compile the network when the training starts."""

import lightning as L
from lightning.pytorch.callbacks import Callback


class Compile(Callback):
    """A callback that compiles the network in place; torch.jit must trace it before (``Graph``)."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.net.compile()  # type: ignore[union-attr, operator]
