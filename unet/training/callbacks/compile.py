"""Compile the network once its graph has been traced: torch.jit refuses to trace compiled networks."""

import lightning as L
from lightning.pytorch.callbacks import Callback


class Compile(Callback):
    """Compile the network in place at the start of a training; has to follow the callback that traces it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.net.compile()  # type: ignore[union-attr, operator]
