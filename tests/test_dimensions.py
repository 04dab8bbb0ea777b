"""Loading, augmentation, images and training in one, two and three dimensions."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import IMAGES, TINY, config
from hydra.utils import instantiate
from torch.utils.data import DataLoader

from unet.data.dataset import TRANSFORM_BY_DIMS, EpochSampler, SegmentationDataset, build_transform, collate
from unet.data.samples import Samples
from unet.data.source import Item, in_memory_pair
from unet.errors import UserError
from unet.training.train import train
from unet.visualization import PADDING, PIXELS_PER_SAMPLE, STRIP_HEIGHT, WINDOW, panel, prediction_grid

SIZES = {1: (64,), 2: (24, 28), 3: (20, 24, 22)}
TRANSFORMS = {
    1: (A.RandomCrop(height=1, width=16), A.HorizontalFlip(p=0.5), A.GaussNoise(p=0.5)),
    2: (A.RandomCrop(height=8, width=8), A.HorizontalFlip(p=0.5), A.GaussNoise(p=0.5)),
    3: (A.RandomCrop3D(size=(8, 8, 8)), A.CubicSymmetry(p=0.5), A.HorizontalFlip(p=0.5), A.GaussNoise(p=0.5)),
}


def batches(spatial_dims: int, workers: int) -> list[dict[str, torch.Tensor]]:
    size = SIZES[spatial_dims]
    items = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image, target = rng.integers(0, 256, (*size, 2)).astype(np.uint8), rng.integers(0, 2, size).astype(np.uint8)
        items.append(Item(str(seed), partial(in_memory_pair, image, target)))
    dataset = SegmentationDataset(
        Samples(items, 2, spatial_dims, 1e9, "train"), build_transform(TRANSFORMS[spatial_dims]), 0
    )
    return list(DataLoader(dataset, 4, sampler=EpochSampler(6, 16, 0), num_workers=workers, collate_fn=collate))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_the_batches_do_not_depend_on_the_number_of_workers(spatial_dims):
    first = batches(spatial_dims, 0)
    assert first[0]["image"].shape == (4, 2, *[16 if spatial_dims == 1 else 8] * spatial_dims)
    assert not torch.equal(first[0]["image"], first[1]["image"])
    for workers in (1, 2):
        for expected, batch in zip(first, batches(spatial_dims, workers), strict=True):
            assert all(torch.equal(expected[key], batch[key]) for key in ("image", "target"))


def apply_transforms(spatial_dims: int, transforms, image: np.ndarray, target: np.ndarray, seed: int = 0):
    transform = transforms if isinstance(transforms, A.Compose) else build_transform(transforms)
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return TRANSFORM_BY_DIMS[spatial_dims](transform, image, target)


def test_noise_differs_between_voxels_and_brightness_does_not():
    flat, target = np.full((6, 8, 10, 1), 100, np.uint8), np.zeros((6, 8, 10), np.uint8)
    noisy, _ = apply_transforms(3, [A.GaussNoise(std_range=(0.1, 0.1), p=1)], flat, target)
    assert (noisy[0] == noisy[1]).mean() < 0.1
    bright, _ = apply_transforms(3, [A.RandomBrightnessContrast(p=1)], flat, target)
    assert np.unique(bright).size == 1 and bright[0, 0, 0, 0] != 100
    gamma, _ = apply_transforms(3, [A.OneOf([A.RandomGamma((150, 150))] * 2, p=1)], flat, target)
    assert np.unique(gamma).size == 1 and gamma.shape == flat.shape and gamma[0, 0, 0, 0] < 100


@pytest.mark.parametrize("spatial_dims", [1, 3])
def test_image_and_target_get_the_same_geometric_transforms(spatial_dims):
    size = SIZES[spatial_dims]
    ramp = np.random.default_rng(0).integers(0, 200, size).astype(np.uint8)
    for seed in range(20):
        image, target = apply_transforms(spatial_dims, TRANSFORMS[spatial_dims][:-1], ramp[..., None], ramp, seed)
        assert (image[..., 0] == target).all()
    options: dict[str, Any] = {"pad_if_needed": True, "fill_mask": 255}
    crop = A.RandomCrop(1, 80, **options) if spatial_dims == 1 else A.RandomCrop3D((32, 16, 16), **options)
    _, target = apply_transforms(spatial_dims, [crop], ramp[..., None], ramp)
    assert (target == 255).any(), "padding is ignored"


def test_a_transform_that_turns_a_sequence_is_refused():
    with pytest.raises(UserError, match="made 9 rows of a sequence"):
        apply_transforms(1, [A.Transpose(p=1)], np.zeros((9, 1), np.uint8), np.zeros(9, np.uint8))


@pytest.mark.parametrize("name, spatial_dims", [("blue_marble_lines", 1), ("icbm152", 3), ("folder", 1), ("folder", 3)])
def test_augmentation_keeps_labels_on_their_samples(name, spatial_dims):
    """After all transforms of a config, a bright block still coincides with its labels."""
    size = (1500,) if spatial_dims == 1 else (48, 80, 80)
    target = np.zeros(size, np.uint8)
    target[tuple(slice(n // 4, -n // 3) for n in size)] = 1
    pixels = (60 + 130 * target)[..., None].astype(np.uint8)
    transforms = config(f"data={name}").data.train_transforms
    transform, mixed = build_transform(instantiate(transforms, _convert_="all"), spatial_dims), 0
    for seed in range(20):
        image, labels = apply_transforms(spatial_dims, transform, pixels, target, seed)
        known = labels < 255
        bright = image[..., 0][known].astype(int) > 125
        assert (bright == labels[known]).mean() > 0.995
        mixed += 0.05 < labels[known].mean() < 0.95
    assert mixed > 5


COLORS = [(0, 0, 0), (10, 200, 10)]


def test_a_volume_is_drawn_as_the_slice_with_the_highest_entropy():
    target = np.zeros((20, 6, 30), np.uint8)
    target[:, 4, :15], target[0, 2, 0] = 1, 1
    target[3, 1] = 255
    image = np.zeros((20, 6, 30, 1), np.uint8)
    image[:, 4] = 250
    picture = panel(image, target, target, COLORS)
    assert picture.shape == (20, 4 * 30 + 3 * PADDING, 3)
    assert (picture[:, :30] == 250).all()
    truth = picture[:, 30 + PADDING : 60 + PADDING]
    assert (truth[:, :15] == COLORS[1]).all() and (truth[:, 15:] == 0).all()


def test_a_sequence_is_drawn_as_strips_of_the_window_with_the_highest_entropy():
    target = np.zeros(4 * WINDOW, np.uint8)
    target[2 * WINDOW : 2 * WINDOW + WINDOW // 2] = 1
    pred = target.copy()
    pred[2 * WINDOW + 7] = 0
    picture = panel(np.zeros((4 * WINDOW, 2), np.float32), target, pred, COLORS)
    assert picture.shape == (4 * STRIP_HEIGHT + 3 * PADDING, PIXELS_PER_SAMPLE * WINDOW, 3)
    truth, errors = picture[STRIP_HEIGHT + PADDING], picture[-1]
    assert (truth == COLORS[1]).all(1).sum() == PIXELS_PER_SAMPLE * WINDOW // 2
    assert (errors[:, 0] > 200).sum() == PIXELS_PER_SAMPLE, "one sample is wrong"
    grid = prediction_grid([picture, picture], ["sea", "land"], COLORS, 1)
    assert grid.dtype == np.uint8 and grid.shape[1] > picture.shape[1]
    assert panel(np.zeros((9, 1)), target[:9], target[:9], COLORS).shape[1] == 9 * PIXELS_PER_SAMPLE, "shorter ones"


def folder_of_arrays(root: Path, spatial_dims: int) -> None:
    """Write eight arrays whose bright samples are cells."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    size = (96,) if spatial_dims == 1 else (20, 24, 36)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        target = np.kron(rng.integers(0, 2, [n // 4 for n in size]), np.ones([4] * spatial_dims)).astype(np.uint8)
        np.save(root / "masks" / f"{seed}.npy", target)
        np.save(root / "images" / f"{seed}.npy", target * 3.0 + rng.normal(0, 0.1, size))


@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*tree.*:FutureWarning")
@pytest.mark.parametrize("spatial_dims, tile", [(1, "[40]"), (3, "[16,16,16]")])
def test_a_folder_of_arrays_trains_with_evaluation_tiles(tmp_path, spatial_dims, tile):
    folder_of_arrays(tmp_path / "data", spatial_dims)
    crop = "RandomCrop, height: 1, width: 32" if spatial_dims == 1 else "RandomCrop3D, size: [16, 16, 16]"
    tiny = [override for override in TINY if not override.startswith(("data.", "trainer.max_epochs", "diagnostics"))]
    overrides = ["data=folder", f"data.root={tmp_path / 'data'}", "data.source.classes=[background,cell]"]
    overrides += ["data.batch_size=4", "data.samples_per_epoch=32"]
    overrides += [f"data.train_transforms=[{{_target_: albumentations.{crop}}}]"]
    overrides += [f"data.eval_tile={tile}", "optim.lr=0.02", "trainer.max_epochs=3", *tiny, *IMAGES]
    metrics = train(config(*overrides, "model.dropout=0"), tmp_path / "run")
    assert metrics["test/miou"] > 0.75
    diagnostics = ("boundary/bf", "trimap/4", "shift/agreement", "checkerboard/peak/4", "information/0")
    assert {f"test/{name}" for name in diagnostics} <= metrics.keys()
    assert ("test/thin/cell" in metrics) == (spatial_dims > 1), "a line has no skeleton"
    assert (tmp_path / "run" / "predictions.png").stat().st_size > 500
