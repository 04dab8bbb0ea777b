"""Order and augmentation of the training samples, each a pure function of (seed, epoch, position).

No random state is shared between samples, so a run does not depend on the number of workers, and a resumed run only
has to restore its position.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler

from unet.data.samples import Samples
from unet.data.source import Array
from unet.errors import UserError

Key = tuple[int, int, int]
"""(epoch, position in the epoch, index of the item)."""

cv2.setNumThreads(0)  # each loader worker uses one thread


class EpochSampler(SequentialSampler):  # Lightning replaces any other sampler for trainer.overfit_batches
    """A sampler of keys whose order depends on (seed, epoch) alone.

    Args:
        num_items: items to draw from.
        length: samples per epoch; unless weighted, every item is drawn once before any is drawn twice.
        seed: the run's seed.
        shuffle: False: the items in order.
        weights: the probability of each item (num_items,) in each epoch, the last in all later ones; None: uniform.
        rank, world_size: this process draws every ``world_size``-th position.
    """

    def __init__(
        self,
        num_items: int,
        length: int,
        seed: int,
        shuffle: bool = True,
        weights: Sequence[Array | None] = (None,),
        rank: int = 0,
        world_size: int = 1,
    ):
        self.num_items, self.seed, self.shuffle, self.weights = num_items, seed, shuffle, weights
        self.length = length - length % world_size
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0  # samples of the next epoch that an interrupted run has used

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def order(self) -> Array:
        """Return the item at each position of the current epoch."""
        if not self.shuffle:
            return np.arange(self.length) % self.num_items
        rng = np.random.default_rng([self.seed, self.epoch])
        weights = self.weights[min(self.epoch, len(self.weights) - 1)]
        if weights is not None:
            return rng.choice(self.num_items, self.length, p=weights)
        rounds = -(-self.length // self.num_items)
        return np.concatenate([rng.permutation(self.num_items) for _ in range(rounds)])[: self.length]

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        skip, self.skip = self.skip, 0
        positions = range(self.rank, self.length, self.world_size)[skip:]
        order = self.order()
        return iter([(self.epoch, position, int(order[position])) for position in positions])


class SegmentationDataset(Dataset[dict[str, Tensor]]):
    """Samples with an augmentation whose random numbers depend on the key alone.

    Args:
        samples: the samples of a split.
        transform: an albumentations pipeline.
        seed: the run's seed.
    """

    def __init__(self, samples: Samples, transform: A.Compose, seed: int):
        self.samples, self.transform, self.seed = samples, transform, seed
        self.apply_transform = TRANSFORM_BY_DIMS[samples.spatial_dims]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """Return image (*S, C), uint8 or float32, and target (*S), int64."""
        epoch, position, index = key
        image, target = self.samples[index]
        sequence = np.random.SeedSequence([self.seed, epoch, position])
        # Albumentations' own seeds are equal in all child transforms and workers; both generators are set per sample.
        self.transform.set_random_state(
            np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0]))
        )
        image, target = self.apply_transform(self.transform, image, target)
        image = np.require(image, np.uint8 if image.dtype == np.uint8 else np.float32, ["C", "W"])
        return {"image": torch.from_numpy(image), "target": torch.from_numpy(target.astype(np.int64))}

    def eval_item(self, index: int) -> dict[str, Tensor]:
        """Return one item as a batch: image (1, C, *S) and target (1, *S)."""
        return collate([self[0, index, index]])


def transform_image(transform: A.Compose, image: Array, target: Array) -> tuple[Array, Array]:
    """Transform image (H, W, C) and target (H, W)."""
    result = transform(image=image, mask=target)
    return result["image"], result["mask"]


def transform_sequence(transform: A.Compose, image: Array, target: Array) -> tuple[Array, Array]:
    """Transform image (L, C) and target (L) as an image of height 1, so a crop has height 1."""
    image, target = transform_image(transform, image[None], target[None])
    if len(target) != 1:
        raise UserError(f"the transforms made {len(target)} rows of a sequence, which is an image of height 1")
    return image[0], target[0]


def transform_volume(transform: A.Compose, image: Array, target: Array) -> tuple[Array, Array]:
    """Transform image (D, H, W, C) and target (D, H, W).

    Geometric transforms use albumentations' ``volume``. Pixelwise transforms get the volume as one image (D H, W, C):
    with ``volume`` they would repeat the noise of one slice in all slices, or fail. Transforms of a neighbourhood, such
    as a blur, have no meaning there.
    """
    for step in transform:
        if is_pixelwise(step):
            image = step(image=image.reshape(-1, *image.shape[2:]))["image"].reshape(image.shape)
        else:
            result = step(volume=image, mask3d=target)
            image, target = result["volume"], result["mask3d"]
    return image, target


def is_pixelwise(step: A.BasicTransform | A.BaseCompose) -> bool:
    """Return whether a transform changes pixel values only."""
    if isinstance(step, A.BaseCompose):
        return all(map(is_pixelwise, step))
    return isinstance(step, A.ImageOnlyTransform)


TRANSFORM_BY_DIMS: dict[int, Callable[[A.Compose, Array, Array], tuple[Array, Array]]] = {
    1: transform_sequence,
    2: transform_image,
    3: transform_volume,
}
"""Functions that apply a transform to image (*S, C) and target (*S), by the number of spatial axes."""


def collate(batch: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack images (*S, C) and targets (*S) into image (B, C, *S), channels-last in memory, and target (B, *S)."""
    sizes = {tuple(sample["target"].shape) for sample in batch}
    if len(sizes) > 1:
        examples = " and ".join(" x ".join(map(str, size)) for size in sorted(sizes)[:2])
        raise UserError(
            f"images of {examples} cannot share a batch; crop or resize them in data.train_transforms or "
            f"data.eval_transforms, or set data.eval_batch_size=1 (and data.eval_tile where images are large)"
        )
    images = torch.stack([sample["image"] for sample in batch]).movedim(-1, 1)
    return {"image": images, "target": torch.stack([sample["target"] for sample in batch])}


def transforms_for_dims(transforms: Sequence[Any], spatial_dims: int) -> list[Any]:
    """Return the transforms, or their configs, for a number of spatial axes.

    An entry may be a mapping ``{1: [...], 2: [...], 3: [...]}``, which is replaced by the list of ``spatial_dims``.
    """
    steps = []
    for entry in transforms:
        by_dims = isinstance(entry, Mapping) and set(entry) <= TRANSFORM_BY_DIMS.keys()
        steps += entry.get(spatial_dims, ()) if by_dims else [entry]
    return steps


def build_transform(transforms: Sequence[Any], spatial_dims: int = 2) -> A.Compose:
    """Return the pipeline of a list of transforms, see :func:`transforms_for_dims`; UserError names a wrong entry."""
    steps = transforms_for_dims(transforms, spatial_dims)
    for step in steps:
        if not isinstance(step, A.BasicTransform | A.BaseCompose):
            raise UserError(f"data transforms: {step!r} is no albumentations transform (write it with _target_)")
    return A.Compose(steps)
