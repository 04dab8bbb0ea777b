"""Does the data loader keep up with the training step?"""

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unet.benchmark.baselines import as_trained
from unet.benchmark.steps import training_step
from unet.benchmark.timing import measure
from unet.errors import UserError

LOADER_SECONDS = 10.0


@dataclass(frozen=True)
class LoaderSpeed:
    """Samples per second the loader gives alone, and that a training step takes."""

    samples_per_s: float
    needed_per_s: float
    image_shape: tuple[int, ...]
    num_workers: int


def loader_rate(source: Any, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Samples per second of a loader on its own, for about ``seconds``, epoch after epoch.

    Args:
        source: a DataLoader (any iterable of ``{"image": (B, C, *S), ...}``) or a data module that makes one.
        seconds: how long to count. What starting the workers and filling their queues takes comes on top.
        clock: seconds, monotonic.
    """
    loader = training_loader(source)
    batches = endless(loader)
    for _ in range(1 + queue_length(loader)):
        next(batches)
    samples, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        samples += len(next(batches)["image"])
    return samples / elapsed


def training_loader(source: Any) -> Iterable[Mapping[str, Any]]:
    """The loader itself, or the training loader of a data module once it is set up."""
    if not hasattr(source, "train_dataloader"):
        return source
    source.prepare_data()
    source.setup("fit")
    return source.train_dataloader()


def queue_length(loader: object) -> int:
    """Batches that workers prepare ahead: counting must not begin before these have been used up."""
    return getattr(loader, "num_workers", 0) * (getattr(loader, "prefetch_factor", 0) or 0)


def endless(loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The loader's batches, epoch after epoch."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise UserError("the loader gives no batch: its split is empty or smaller than one batch")


def compare_loader(source: Any, network: nn.Module, rounds: int, device: str) -> LoaderSpeed:
    """The loader's rate beside what a training step of ``network`` takes in, on one of the loader's own batches."""
    loader = training_loader(source)
    rate = loader_rate(loader, LOADER_SECONDS)
    batch = next(iter(loader))
    image, target = batch["image"].to(device).float(), batch["target"].to(device).long()
    step = training_step(as_trained(network, device), image, target)
    step_ms = statistics.median(measure({"step": step}, rounds)["step"])
    return LoaderSpeed(rate, 1e3 * len(image) / step_ms, tuple(image.shape), getattr(loader, "num_workers", 0))


def default_training() -> tuple[Any, nn.Module]:
    """The data module and the network of ``configs/train.yaml`` as it stands."""
    from hydra import compose, initialize_config_dir
    from lightning import Trainer

    from unet.io.config_keys import CONFIGS
    from unet.training.build import build_data, build_task

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train")
    data = build_data(config)
    data.trainer = Trainer(devices=1, logger=False, enable_checkpointing=False)  # by its device, workers are chosen
    data.scan()
    return data, build_task(config, data).net
