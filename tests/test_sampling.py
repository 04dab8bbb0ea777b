"""Tests that order and augmentation depend on the keys alone."""

import time
from functools import partial

import albumentations as A
import numpy as np
import pytest
import torch
from folders import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from unet.data import SegmentationData
from unet.data.blue_marble import BlueMarble, in_memory_pair
from unet.data.dataset import EpochSampler, SegmentationDataset, build_transform, collate
from unet.data.samples import Samples
from unet.data.source import Item
from unet.errors import UserError

TRANSFORMS = (A.RandomCrop(height=8, width=8), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5))


def items_of(count: int, size: int = 24) -> list[Item]:
    return [
        Item(str(seed), partial(in_memory_pair, noise(size, size, 3, seed=seed), noise(size, size, below=2, seed=seed)))
        for seed in range(count)
    ]


def dataset(count: int = 12, seed: int = 0, transforms=TRANSFORMS, size: int = 24) -> SegmentationDataset:
    return SegmentationDataset(Samples(items_of(count, size), 2, 2, 1e9, "train"), build_transform(transforms), seed)


def batches(workers: int = 0, epoch: int = 0, seed: int = 0, skip: int = 0) -> list[dict[str, torch.Tensor]]:
    sampler = EpochSampler(12, 24, seed)
    sampler.set_epoch(epoch)
    sampler.skip = skip
    return list(DataLoader(dataset(seed=seed), 4, sampler=sampler, num_workers=workers, collate_fn=collate))


def equal(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in ("image", "target")
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_the_samples(workers):
    assert equal(batches(), batches(workers))


def test_epochs_and_seeds_differ():
    assert not equal(batches(), batches(epoch=1))
    assert not equal(batches(), batches(seed=1))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_resumed_epoch_gives_its_other_batches(batch):
    assert equal(batches(epoch=2)[batch:], batches(epoch=2, skip=4 * batch))


def test_a_loaded_position_gives_the_other_batches():
    class Source(BlueMarble):
        def load_splits(self):
            return {"train": items_of(6), "val": items_of(2)}

    def loader(state: dict[str, int]) -> DataLoader:
        data = SegmentationData(Source(), 0, 2, 1, samples_per_epoch=10, train_transforms=TRANSFORMS, num_workers=0)
        data.load_state_dict(state)
        data.scan()
        return data.train_dataloader()

    assert equal(list(loader({"epoch": 3, "batch": 0}))[2:], list(loader({"epoch": 3, "batch": 2})))


def test_augmentation_differs_at_every_position():
    draws = dataset(1, transforms=[A.RandomCrop(height=8, width=8)], size=64)
    crops = {draws[0, position, 0]["image"].numpy().tobytes() for position in range(64)}
    assert len(crops) > 56  # of 3,249 places


def test_flips_are_independent():
    draws = dataset(1, transforms=[A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    flips = [draws[0, position, 0]["image"].numpy().tobytes() for position in range(80)]
    assert len(set(flips)) == 4
    assert min(map(flips.count, set(flips))) > 8


@settings(max_examples=25)
@given(st.permutations(range(6)), st.integers(0, 3))
def test_a_sample_does_not_depend_on_previous_ones(indices, epoch):
    expected, draws = dataset(6), dataset(6)
    for index in indices:
        key = epoch, 10 + index, index
        assert torch.equal(draws[key]["image"], expected[key]["image"])
    assert torch.equal(draws[epoch, 10, 0]["image"], dataset(6)[epoch, 10, 0]["image"])


def test_image_and_target_are_transformed_alike():
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    items = [Item("ramp", lambda: (ramp[..., None], ramp))]
    data = SegmentationDataset(Samples(items, 64, 2, 1e9, "train"), build_transform([A.D4(p=1), *TRANSFORMS[1:]]), 0)
    for position in range(20):
        sample = data[0, position, 0]
        assert torch.equal(sample["image"][..., 0].long(), sample["target"])


@given(st.integers(1, 20), st.integers(4, 60), st.integers(0, 5), st.booleans())
def test_an_epoch_draws_every_item_once_before_any_twice(count, length, epoch, shuffle):
    sampler = EpochSampler(count, length, seed=3, shuffle=shuffle)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert [key[:2] for key in keys] == [(epoch, position) for position in range(length)]
    indices = [key[2] for key in keys]
    for start in range(0, length - count + 1, count):
        assert sorted(indices[start : start + count]) == list(range(count))
    assert len(set(indices)) == min(count, length)
    if not shuffle:
        assert indices == [position % count for position in range(length)]


@given(st.integers(1, 20), st.integers(4, 60), st.integers(1, 4), st.integers(0, 9))
def test_ranks_divide_an_epoch_and_skip_the_first_samples(count, length, world, skip):
    samplers = [EpochSampler(count, length, 0, rank=rank, world_size=world) for rank in range(world)]
    keys = [list(sampler) for sampler in samplers]
    assert {len(rank_keys) for rank_keys in keys} == {len(samplers[0])}
    together = sorted(key for rank_keys in keys for key in rank_keys)
    assert [key[1] for key in together] == list(range(length - length % world))
    assert together == list(EpochSampler(count, length - length % world, 0))
    samplers[0].skip = skip
    assert list(samplers[0]) == keys[0][skip:]
    assert list(samplers[0]) == keys[0], "only the interrupted epoch is shortened"


def test_items_beyond_the_budget_are_read_again():
    reads = []

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        reads.append(number)
        return noise(8, 8, 3, seed=number), noise(8, 8, below=2, seed=number)

    items = [Item(str(number), lambda number=number: read(number)) for number in range(5)]
    samples = Samples(items, 2, 2, budget=2.5 * 8 * 8 * 4, split="train")
    assert sorted(reads) == [0, 1, 2, 3, 4]
    assert samples.bytes == 2 * 8 * 8 * 4
    for number in range(5):
        image, target = samples[number]
        assert (image == noise(8, 8, 3, seed=number)).all() and (target == noise(8, 8, below=2, seed=number)).all()
    assert sorted(reads) == [0, 1, 2, 2, 3, 3, 4, 4]


def test_readers_run_a_bounded_number_of_images_ahead_of_a_slow_consumer(monkeypatch):
    decoded, waiting = [], []

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        decoded.append(number)
        return np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.uint8)

    def slowly(results, total, description):
        for consumed, result in enumerate(results):
            for _ in range(20):
                if not consumed and len(decoded) < total:
                    time.sleep(0.01)  # as far ahead as they may
            waiting.append(len(decoded) - consumed)
            yield result

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("unet.data.samples.progress", slowly)
    Samples([Item(str(number), partial(read, number)) for number in range(40)], 2, 2, budget=0, split="train")
    assert len(waiting) == len(decoded) == 40
    assert max(waiting) <= 4, "at most two images a reader"


def test_counts_statistics_and_highest_entropy():
    black, white = np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 200, np.uint8)
    targets = [np.zeros((2, 2), np.uint8), np.array([[0, 1], [1, 255]], np.uint8)]
    items = [Item("a", lambda: (black, targets[0])), Item("b", lambda: (white, targets[1]))]
    samples = Samples(items, 2, 2, 1e9, "train")
    assert samples.item_counts.tolist() == [[4, 0], [1, 2]]
    assert samples.label_counts == [5, 2]
    assert samples.statistics() == ([100.0], [100.0])
    assert samples.highest_entropy(1) == [1]


def test_collate_stacks_channels_last_and_rejects_two_sizes():
    sample = {"image": torch.zeros(4, 5, 3), "target": torch.zeros(4, 5, dtype=torch.long)}
    batch = collate([sample, sample])
    assert batch["image"].shape == (2, 3, 4, 5) and batch["target"].shape == (2, 4, 5)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    taller = {"image": torch.zeros(6, 5, 3), "target": torch.zeros(6, 5, dtype=torch.long)}
    with pytest.raises(UserError, match="4 x 5 and 6 x 5 cannot share a batch"):
        collate([sample, taller])


def test_foreground_sampling_keeps_the_proportions_of_foreground_classes():
    masks = [np.zeros((4, 4), np.uint8) for _ in range(4)]
    masks[2][:2], masks[3][0] = 1, 2  # 8 pixels of one class, 4 of another; two items of background alone
    items = [Item(str(index), lambda mask=mask: (mask[..., None], mask)) for index, mask in enumerate(masks)]
    weights = Samples(items, 3, 2, 0, "train").foreground_balance()
    assert weights == pytest.approx([1 / 16, 1 / 16, 1 / 16 + 0.5, 1 / 16 + 0.25])
    blank = Samples(items[:2], 3, 2, 0, "train").foreground_balance()
    assert blank == pytest.approx([0.5, 0.5]), "no foreground"


def test_class_balanced_sampling_draws_rare_and_frequent_classes_equally():
    common, rare = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    rare[0, 0] = 1
    items = [
        Item(str(index), lambda mask=mask: (mask[..., None], mask)) for index, mask in enumerate([common] * 9 + [rare])
    ]
    samples = Samples(items, 3, 2, 0, "train")  # the third class occurs nowhere
    weights = samples.class_balance()
    assert weights.sum() == pytest.approx(1)
    assert weights[9] == pytest.approx((1 + 15 / 159) / 2)  # all of class 1, 15 of the 159 pixels of class 0
    indices = EpochSampler(10, 4000, seed=0, weights=[weights]).order()
    assert np.mean(indices == 9) == pytest.approx(weights[9], abs=0.03)
    assert (EpochSampler(10, 4000, seed=0, weights=[weights]).order() == indices).all()


def test_sampling_may_differ_between_epochs_and_the_last_stays():
    only = [np.eye(4)[index] for index in range(2)]
    sampler = EpochSampler(4, 8, seed=0, weights=[*only, None])
    drawn = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        drawn.append(set(sampler.order().tolist()))
    assert drawn == [{0}, {1}, {0, 1, 2, 3}, {0, 1, 2, 3}]
