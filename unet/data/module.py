"""The LightningDataModule: loaders of a data set's splits."""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from unet.data.dataset import EpochSampler, SegmentationDataset, build_transform, collate
from unet.data.files import and_more
from unet.data.image_range import undeclared_nodata
from unet.data.samples import Samples, channel_mismatch, cross_split_duplicates, evenly_spaced, named_ranges
from unet.data.source import ALL, Item, Source
from unet.errors import UserError
from unet.inference.tiling import check_tile

SAMPLING = {
    "uniform": lambda samples: None,
    "class_balanced": lambda samples: samples.class_balance(),
    "foreground": lambda samples: samples.foreground_balance(),
}
"""Functions that return the probabilities of the training items, None for uniform."""

ITERATORS: WeakSet[_BaseDataLoaderIter] = WeakSet()
"""The iterators of this process's data loaders that are still in use."""


class SegmentationData(L.LightningDataModule):
    """A data module that checks a data set before training.

    Args:
        source: the data set.
        seed: keys order and augmentation.
        batch_size: samples per training batch, on each device.
        eval_batch_size: images per evaluation batch; 1 if sizes differ.
        samples_per_epoch: samples per epoch; None: every training item once.
        sampling: ``uniform``: every training item equally often; ``class_balanced``: draw a class, then an item in
            proportion to its pixels of that class; ``foreground``: mostly items with many pixels outside the most
            frequent class. A list has one for each epoch, the last for all later ones.
        train_transforms, eval_transforms: albumentations transforms; see :func:`unet.data.dataset.build_transform`.
        num_workers: loader processes; ``auto``: none for training on the CPU, else up to 8.
        cache_gb: size of the cache of decoded images, in GiB.
        eval_tile, eval_overlap: tiles for evaluation, see :mod:`unet.inference.tiling`; None: no tiles.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        samples_per_epoch: int | None = None,
        sampling: str | Sequence[str] = "uniform",
        train_transforms: Sequence[Any] = (),
        eval_transforms: Sequence[Any] = (),
        num_workers: int | str = "auto",
        cache_gb: float = 4.0,
        eval_tile: Sequence[int] | None = None,
        eval_overlap: float = 0.25,
    ):
        super().__init__()
        self.source, self.seed = source, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.samples_per_epoch = samples_per_epoch
        self.sampling = [sampling] if isinstance(sampling, str) else list(sampling)
        self.transforms = {"train": list(train_transforms), "eval": list(eval_transforms)}
        self.num_workers = num_workers
        self.budget = cache_gb * 2**30
        self.eval_tile, self.eval_overlap = eval_tile, eval_overlap
        self.samples: dict[str, Samples] = {}
        self.scanned = False
        self.in_two_splits: list[tuple[Item, Item]] = []
        self.start = {"epoch": 0, "batch": 0}  # the position from which training starts or resumes

    def use_all_items(self) -> None:
        """Use all items as one split, ``all``, for an evaluation; they need not suffice for a training."""
        self.source.items = {ALL: self.source.all_items()}

    def read(self) -> None:
        """Read and check every item of every split, once. Raises UserError at the first invalid item."""
        if self.samples:
            return
        budget = self.budget
        samples = {}
        for split, items in self.source.items.items():
            samples[split] = Samples(items, self.source.num_classes, self.source.spatial_dims, budget, split)
            budget -= samples[split].bytes
        first = next(iter(samples.values()))
        for split, part in samples.items():
            if part.channels != first.channels:
                raise channel_mismatch(part.items[0], part.channels, first.items[0], first.channels)
            if not part.item_counts.any():
                raise UserError(
                    f"{part.items[0].name}: no pixel is labelled in this or any other mask of {split}: all are "
                    f"ignored; correct the masks, or data.source.values"
                )
        options = self.source.read_options
        if options.nodata is None and options.declared_nodata:
            require_declared_nodata(samples.values())
        self.samples = samples

    def scan(self) -> None:
        """Read and check every item and what the training needs of them, once. Raises UserError."""
        if self.scanned:
            return
        self.read()
        check_tile(self.eval_tile, self.eval_overlap, self.source.spatial_dims)
        train = self.samples.get("train")  # None in an evaluation of all items
        if train is not None and (self.samples_per_epoch or len(train)) < self.batch_size:
            raise UserError(
                f"{len(train)} training images are fewer than data.batch_size={self.batch_size}; "
                f"set data.samples_per_epoch to draw several crops of each, or a smaller batch"
            )
        self.in_two_splits = cross_split_duplicates(self.samples.values())
        for split in self.samples:
            self.dry_run_transforms(split)
        self.scanned = True

    def dry_run_transforms(self, split: str, most: int = 16) -> None:
        """Transform and batch images of up to ``most`` sizes, so that errors occur before training."""
        sizes = sorted(self.samples[split].sizes.items())
        dataset = self.dataset(split)
        batch = []
        for index in sorted({sizes[rank][1] for rank in evenly_spaced(len(sizes), most)}):
            try:
                batch.append(dataset[0, index, index])
            except Exception as error:
                name, kind = self.samples[split].items[index].name, "train" if split == "train" else "eval"
                raise UserError(f"{name}: data.{kind}_transforms fail ({error})") from error
        if (self.batch_size if split == "train" else self.eval_batch_size) > 1:
            collate(batch)

    def setup(self, stage: str) -> None:
        self.scan()

    @property
    def channels(self) -> int:
        return next(iter(self.samples.values())).channels

    @property
    def eval_split(self) -> str:
        """Return the split of the final metrics: ``test``, or ``val`` if there is no test split."""
        return "test" if "test" in self.source.items else "val"

    def train_dataloader(self) -> DataLoader:
        samples = self.samples["train"]
        world = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        length = self.samples_per_epoch or len(samples)
        weights = [SAMPLING[name](samples) for name in self.sampling]
        shuffle = not (self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        sampler = EpochSampler(len(samples), length, self.seed, shuffle, weights, rank, world)
        # Lightning creates the first iterator before it calls set_epoch.
        sampler.set_epoch(self.start["epoch"])
        sampler.skip = self.start["batch"] * self.batch_size
        return self.loader(self.dataset("train"), sampler, self.batch_size, training=True)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its finished batches, for the checkpoint.

        A resumed run needs no more to draw the same samples: order and augmentation are pure functions of (seed, epoch,
        position). Lightning restores its counters but repeats the epoch from its start.
        """
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        epochs, batch = divmod(batches, int(self.trainer.num_training_batches))
        return {"epoch": self.trainer.current_epoch + epochs, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.start = state_dict

    def val_dataloader(self) -> DataLoader:
        return self.eval_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.eval_loader(self.eval_split)

    def eval_loader(self, split: str) -> DataLoader:
        """Return a loader of a split in order; each of several processes evaluates all of it."""
        sampler = EpochSampler(len(self.samples[split]), len(self.samples[split]), self.seed, shuffle=False)
        return self.loader(self.dataset(split, "eval"), sampler, self.eval_batch_size, training=False)

    def dataset(self, split: str, transforms: str | None = None) -> SegmentationDataset:
        """Return a split with the ``train`` or ``eval`` transforms, by default its own."""
        kind = transforms or ("train" if split == "train" else "eval")
        transform = build_transform(self.transforms[kind], self.source.spatial_dims)
        return SegmentationDataset(self.samples[split], transform, self.seed)

    def example(self, split: str, index: int = 0) -> Tensor:
        """Return an item's image (1, C, *S) as the network's input: in evaluation at most a tile."""
        image = self.dataset(split).eval_item(index)["image"]
        if split == "train" or self.eval_tile is None:
            return image
        return image[:, :, *(slice(n) for n in self.eval_tile)]

    def loader(
        self, dataset: SegmentationDataset, sampler: EpochSampler, batch_size: int, training: bool
    ) -> DataLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.num_workers
        if workers == "auto":
            workers = min(8, max(1, (os.cpu_count() or 1) - 1)) if on_gpu else 0
        return TrackedDataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=int(workers),
            collate_fn=collate,
            worker_init_fn=init_worker,
            drop_last=training,
            pin_memory=on_gpu,
            persistent_workers=training and int(workers) > 0,
        )


class TrackedDataLoader(DataLoader):
    """A data loader whose iterators :func:`shutdown_workers_on_exit` finds."""

    def __iter__(self) -> _BaseDataLoaderIter:
        iterator = super().__iter__()
        ITERATORS.add(iterator)
        return iterator


@contextmanager
def shutdown_workers_on_exit() -> Iterator[None]:
    """Shut down the worker processes of all loaders when the block ends, also by an error.

    The traceback of an error can keep an iterator until garbage collection, which closes its queues first. torch then
    cannot tell the workers to end, and the process waits for them forever.
    """
    try:
        yield
    finally:
        for iterator in list(ITERATORS):
            if isinstance(iterator, _MultiProcessingDataLoaderIter):
                iterator._shutdown_workers()


def init_worker(worker: int) -> None:
    """Ignore signals in a worker: Ctrl-C reaches it too, and a dead worker would end the run before it is saved.

    A second SIGTERM ends the worker, as loaders require.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.signal(signum, signal.SIG_DFL))


def require_declared_nodata(splits: Iterable[Samples]) -> None:
    """Raise UserError if images have a value that probably stands for no data."""
    if found := undeclared_nodata(named_ranges(splits)):
        text, names = found
        raise UserError(f"{and_more(names, 'image')}: {text}")
