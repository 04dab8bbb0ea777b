"""The same order, augmentation, training and pictures in one, two and three dimensions."""

import random
from functools import partial
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import DataLoader

from unet.data.dataset import TRANSFORM_BY_DIMS, EpochSampler, SegmentationDataset, build_transform, collate
from unet.data.samples import Samples
from unet.data.source import Item, in_memory_pair
from unet.errors import UserError
from unet.training.train import train
from unet.visualization import GAP, STRETCH, STRIP, ZOOM, panel, prediction_grid

SIZES = {1: (64,), 2: (24, 28), 3: (20, 24, 22)}
STEPS = {
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
        Samples(items, 2, spatial_dims, 1e9, "train"), build_transform(STEPS[spatial_dims]), 0
    )
    return list(DataLoader(dataset, 4, sampler=EpochSampler(6, 16, 0), num_workers=workers, collate_fn=collate))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_workers_change_nothing(spatial_dims):
    first = batches(spatial_dims, 0)
    assert first[0]["image"].shape == (4, 2, *[16 if spatial_dims == 1 else 8] * spatial_dims)
    assert not torch.equal(first[0]["image"], first[1]["image"])
    for workers in (1, 2):
        for one, other in zip(first, batches(spatial_dims, workers), strict=True):
            assert torch.equal(one["image"], other["image"]) and torch.equal(one["target"], other["target"])


def applied(spatial_dims: int, steps, image: np.ndarray, target: np.ndarray, seed: int = 0):
    transform = steps if isinstance(steps, A.Compose) else build_transform(steps)
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return TRANSFORM_BY_DIMS[spatial_dims](transform, image, target)


def test_noise_differs_from_voxel_to_voxel_and_brightness_does_not():
    flat, target = np.full((6, 8, 10, 1), 100, np.uint8), np.zeros((6, 8, 10), np.uint8)
    noisy, _ = applied(3, [A.GaussNoise(std_range=(0.1, 0.1), p=1)], flat, target)
    assert (noisy[0] == noisy[1]).mean() < 0.1
    bright, _ = applied(3, [A.RandomBrightnessContrast(p=1)], flat, target)
    assert np.unique(bright).size == 1 and bright[0, 0, 0, 0] != 100
    chosen, _ = applied(3, [A.OneOf([A.RandomGamma((150, 150)), A.RandomGamma((150, 150))], p=1)], flat, target)
    assert np.unique(chosen).size == 1 and chosen.shape == flat.shape and chosen[0, 0, 0, 0] < 100


@pytest.mark.parametrize("spatial_dims", [1, 3])
def test_image_and_target_are_moved_together(spatial_dims):
    size = SIZES[spatial_dims]
    ramp = np.random.default_rng(0).integers(0, 200, size).astype(np.uint8)
    for seed in range(20):
        image, target = applied(spatial_dims, STEPS[spatial_dims][:-1], ramp[..., None], ramp, seed)
        assert (image[..., 0] == target).all()
    padding = {1: A.RandomCrop(height=1, width=80, pad_if_needed=True, fill_mask=255)}
    padding[3] = A.RandomCrop3D(size=(32, 16, 16), pad_if_needed=True, fill_mask=255)
    _, target = applied(spatial_dims, [padding[spatial_dims]], ramp[..., None], ramp)
    assert (target == 255).any(), "what is added is ignored"


def test_a_sequence_stays_one():
    with pytest.raises(UserError, match="made 9 rows of a sequence"):
        applied(1, [A.Transpose(p=1)], np.zeros((9, 1), np.uint8), np.zeros(9, np.uint8))


def config_transforms(name: str, spatial_dims: int) -> A.Compose:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        steps = compose("train", [f"data={name}"]).data.train_transforms
    return build_transform(instantiate(steps, _convert_="all"), spatial_dims)


@pytest.mark.parametrize("name, spatial_dims", [("blue_marble_lines", 1), ("icbm152", 3), ("folder", 1), ("folder", 3)])
def test_augmentation_keeps_labels_on_their_samples(name, spatial_dims):
    """A bright block in a dark field and its labels: after every transform of the config they still coincide."""
    size = (1500,) if spatial_dims == 1 else (48, 80, 80)
    target = np.zeros(size, np.uint8)
    target[tuple(slice(n // 4, -n // 3) for n in size)] = 1
    steps, mixed = config_transforms(name, spatial_dims), 0
    for seed in range(20):
        image, labels = applied(spatial_dims, steps, (60 + 130 * target)[..., None].astype(np.uint8), target, seed)
        known = labels < 255
        bright = image[..., 0][known].astype(int) > 125
        assert (bright == labels[known]).mean() > 0.995
        mixed += 0.05 < labels[known].mean() < 0.95
    assert mixed > 5


# Pictures

COLORS = [(0, 0, 0), (10, 200, 10)]


def test_of_a_volume_the_most_varied_slice_across_its_shortest_axis_is_drawn():
    target = np.zeros((20, 6, 30), np.uint8)
    target[:, 4, :15], target[0, 2, 0] = 1, 1
    target[3, 1] = 255
    image = np.zeros((20, 6, 30, 1), np.uint8)
    image[:, 4] = 250
    picture = panel(image, target, target, COLORS)
    assert picture.shape == (20, 4 * 30 + 3 * GAP, 3)
    assert (picture[:, :30] == 250).all()
    assert (picture[:, 30 + GAP : 45 + GAP] == COLORS[1]).all() and (picture[:, 45 + GAP : 60 + GAP] == 0).all()


def test_of_a_sequence_the_most_varied_stretch_is_drawn_as_strips():
    target = np.zeros(4 * STRETCH, np.uint8)
    target[2 * STRETCH : 2 * STRETCH + STRETCH // 2] = 1
    pred = target.copy()
    pred[2 * STRETCH + 7] = 0
    picture = panel(np.zeros((4 * STRETCH, 2), np.float32), target, pred, COLORS)
    assert picture.shape == (4 * STRIP + 3 * GAP, ZOOM * STRETCH, 3)
    truth, wrong = picture[STRIP + GAP], picture[-1]
    assert (truth == COLORS[1]).all(1).sum() == ZOOM * STRETCH // 2
    assert (wrong[:, 0] > 200).sum() == ZOOM, "one sample is wrong"
    page = prediction_grid([picture, picture], ["sea", "land"], COLORS, 1)
    assert isinstance(page, Image.Image) and page.width > picture.shape[1]


def test_a_short_sequence_is_drawn_whole():
    assert panel(np.zeros((9, 1)), np.zeros(9, np.uint8), np.zeros(9, np.uint8), COLORS).shape[1] == 9 * ZOOM


# Training


def folder_of_arrays(root: Path, spatial_dims: int) -> Path:
    """Eight arrays in which bright is cell."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    size = (96,) if spatial_dims == 1 else (20, 24, 36)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        target = np.kron(rng.integers(0, 2, [n // 4 for n in size]), np.ones([4] * spatial_dims)).astype(np.uint8)
        np.save(root / "masks" / f"{seed}.npy", target)
        np.save(root / "images" / f"{seed}.npy", target * 3.0 + rng.normal(0, 0.1, size))
    return root


@pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*tree.*:FutureWarning")
@pytest.mark.parametrize("spatial_dims, tile", [(1, "[40]"), (3, "[16,16,16]")])
def test_a_folder_of_arrays_trains_and_is_evaluated_by_tiles(tmp_path, spatial_dims, tile):
    root = folder_of_arrays(tmp_path / "data", spatial_dims)
    crop = "RandomCrop, height: 1, width: 32" if spatial_dims == 1 else "RandomCrop3D, size: [16, 16, 16]"
    tiny = [override for override in TINY if not override.startswith(("data.", "trainer.max_epochs", "diagnostics"))]
    chosen = ["data=folder", f"data.root={root}", "data.source.classes=[background,cell]", "data.batch_size=4"]
    chosen += ["data.samples_per_epoch=32", f"data.train_transforms=[{{_target_: albumentations.{crop}}}]"]
    chosen += [f"data.eval_tile={tile}", "optim.lr=0.02", "trainer.max_epochs=3", "num_logged_images=1", *tiny]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        metrics = train(compose("train", [*chosen, "model.dropout=0"]), tmp_path / "run")
    assert metrics["test/miou"] > 0.75
    figures = ("boundary/bf", "trimap/4", "shift/agreement", "checkerboard/peak/4", "information/0")
    assert {f"test/{name}" for name in figures} <= metrics.keys()
    assert ("test/thin/cell" in metrics) == (spatial_dims > 1), "a line has no skeleton"
    assert (tmp_path / "run" / "predictions.png").stat().st_size > 500
