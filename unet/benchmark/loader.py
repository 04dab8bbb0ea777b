"""Compare the rate of the data loader with the rate of the training step."""

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unet.benchmark.baselines import in_training_format
from unet.benchmark.timing import measure
from unet.errors import UserError

LOADER_SECONDS = 10.0


@dataclass(frozen=True)
class LoaderSpeed:
    """Images per second that the loader yields alone, and that a training step consumes."""

    samples_per_s: float
    needed_per_s: float
    image_shape: tuple[int, ...]
    num_workers: int


def loader_rate(
    loader: Iterable[Mapping[str, Any]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the images per second of a loader of ``{"image": (B, C, *S), ...}``, epoch after epoch, over ``seconds``.

    The time begins when the workers are started and the batches they prepare ahead are used up.
    """
    batches = repeat_epochs(loader)
    prefetched = getattr(loader, "num_workers", 0) * (getattr(loader, "prefetch_factor", 0) or 0)
    for _ in range(1 + prefetched):
        next(batches)
    count, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        count += len(next(batches)["image"])
    return count / elapsed


def repeat_epochs(loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the loader's batches, epoch after epoch. Raises UserError if it has none."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise UserError("the loader yields no batch: its split is empty or smaller than one batch")


def compare_loader(loader: Iterable[Mapping[str, Any]], network: nn.Module, rounds: int, device: str) -> LoaderSpeed:
    """Compare the loader's rate with that of a training step of ``network`` on one of its batches."""
    rate = loader_rate(loader, LOADER_SECONDS)
    batch = next(iter(loader))
    image, target = batch["image"].to(device).float(), batch["target"].to(device).long()
    step = in_training_format(network, device).training_step(image, target)
    step_ms = statistics.median(measure({"step": step}, rounds)["step"])
    return LoaderSpeed(rate, 1e3 * len(image) / step_ms, tuple(image.shape), getattr(loader, "num_workers", 0))


def default_training() -> tuple[Any, nn.Module]:
    """Return the training data loader and the network of ``configs/train.yaml``."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer

    from unet.io.config_keys import CONFIGS
    from unet.training.build import build_data, build_task

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train")
    data = build_data(config)
    data.trainer = Trainer(devices=1, logger=False, enable_checkpointing=False)  # the number of workers depends on it
    data.setup("fit")
    return data.train_dataloader(), build_task(config, data).net
