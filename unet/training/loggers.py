"""Loggers of scalars and images by name: Lightning's own classes."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

from unet.errors import UserError
from unet.visualization import to_png

PROJECT = "unet-lab"
"""The project of all runs in Weights & Biases."""


def make_wandb_logger(out: Path) -> Logger:
    """Return a logger for Weights & Biases; a resumed run, which has the same folder, continues its own."""
    identifier = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    return WandbLogger(name=out.name, save_dir=out, project=PROJECT, id=identifier, resume="allow")


LOGGERS: Mapping[str, Callable[[Path], Logger]] = {
    "tensorboard": lambda out: TensorBoardLogger(out, name="", version="", default_hp_metric=False),
    "csv": lambda out: CSVLogger(out, name="csv"),  # a new version of the file after a resume, since it cannot append
    "wandb": make_wandb_logger,
}
"""Functions that return the logger of a run's folder, by the values of ``logger``."""

IMAGE_LOGGERS = (TensorBoardLogger, WandbLogger)
"""The loggers that :func:`log_image` logs images to."""


def make_loggers(names: str | Sequence[str], out: Path) -> list[Logger]:
    """Return the loggers of a config's ``logger``, one name or several. Raises UserError if a package is missing."""
    loggers = []
    for name in [names] if isinstance(names, str) else names:
        try:
            loggers.append(LOGGERS[name](out))
        except ModuleNotFoundError as error:
            raise UserError(f"logger={name}: {' '.join(str(error).split())}; pip install {name}") from None
    return loggers


def log_image(loggers: Iterable[Logger], tag: str, image: np.ndarray, step: int) -> None:
    """Log an image (H, W, 3) uint8 to all ``IMAGE_LOGGERS``."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            height, width, colors = image.shape
            encoded = Summary.Image(height=height, width=width, colorspace=colors, encoded_image_string=to_png(image))
            summary = Summary(value=[Summary.Value(tag=tag, image=encoded)])
            # As add_image does, whose compression takes three times as long; this opens a closed writer again.
            logger.experiment._get_file_writer().add_summary(summary, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [image], step)


def log_result(loggers: Iterable[Logger], hparams: Mapping[str, Any], final: Mapping[str, float]) -> None:
    """Log the hyper-parameters and the final metrics, and write everything that is pending."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(hparams), dict(final))
        else:
            logger.log_hyperparams(dict(hparams))
            logger.log_metrics(dict(final))
        logger.finalize("success")  # for TensorBoard, writes hparams.yaml and stops the writer thread
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # the next job of this process would otherwise log to the same run
