"""Crops of which a share contains a pixel of a rare class."""

import random

import albumentations as A
import numpy as np
import pytest
from conftest import config

from unet.data.allowed_classes import check_targets
from unet.data.crops import ForegroundCrop, ForegroundCrop3D
from unet.data.dataset import SegmentationDataset
from unet.training.build import build_data


def masks_of(transform: A.BasicTransform, count: int, mask: np.ndarray) -> list[np.ndarray]:
    """Return crops of a mask, (H, W) or (D, H, W), for ``count`` states of the random generators."""
    pipeline, names = A.Compose([transform]), ("image", "mask") if mask.ndim == 2 else ("volume", "mask3d")
    crops = []
    for seed in range(count):
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        image = np.repeat(mask[..., None], 3, axis=-1)
        result = pipeline(**dict(zip(names, (image, mask), strict=True)))
        assert (result[names[0]][..., 0] == np.where(result[names[1]] == 9, 0, result[names[1]])).all(), "same place"
        crops.append(result[names[1]])
    return crops


def test_every_crop_contains_a_rare_class_and_each_class_equally_often():
    mask = np.zeros((60, 80), np.uint8)
    mask[57, 2], mask[10:20, 60:70] = 1, 2  # one pixel in a corner, and a hundred far from it
    crops = masks_of(ForegroundCrop(32, 32, foreground=1), 300, mask)
    has = np.array([[label in crop for label in (1, 2)] for crop in crops])
    assert all(crop.shape == (32, 32) for crop in crops) and has.any(1).all()
    assert 0.4 < has[:, 0].mean() < 0.6, "the class is drawn first"
    places = {tuple(np.argwhere(crop == 2)[0]) for crop in crops if 2 in crop}
    assert len(places) > 30, "the pixel is anywhere in the crop"


def test_the_fraction_is_that_of_the_crops():
    mask = np.zeros((200, 200), np.uint8)
    mask[100, 100] = 1
    chance = np.mean([1 in crop for crop in masks_of(A.RandomCrop(20, 20), 400, mask)])
    share = np.mean([1 in crop for crop in masks_of(ForegroundCrop(20, 20, foreground=0.33), 400, mask)])
    assert chance < 0.05 and 0.26 < share < 0.42


def test_small_images_are_padded_around_the_pixel():
    mask = np.zeros((10, 70), np.uint8)
    mask[9, 69] = 1
    crops = masks_of(ForegroundCrop(32, 32, foreground=1, pad_if_needed=True, fill_mask=9), 50, mask)
    assert all((crop == 1).sum() == 1 and (crop == 9).sum() == 22 * 32 for crop in crops)


def test_volumes():
    mask = np.zeros((6, 40, 50), np.uint8)
    mask[5, 39, 49], mask[0, 0, 0] = 1, 255
    crops = masks_of(ForegroundCrop3D((8, 16, 16), foreground=1, pad_if_needed=True, fill_mask=9), 50, mask)
    assert all(crop.shape == (8, 16, 16) and (crop == 1).sum() == 1 for crop in crops)


@pytest.mark.parametrize("fill", [0, 3, 255])
def test_a_mask_of_one_class_has_random_crops(fill: int):
    mask = np.full((40, 40), fill, np.uint8)
    mask[:2] = 255  # ignored pixels are no class
    crops = masks_of(ForegroundCrop(16, 16, foreground=1), 20, mask)
    assert len({crop.tobytes() for crop in crops}) > 1 or fill == 255


def test_without_foreground_the_crops_are_those_of_albumentations():
    mask = np.random.default_rng(0).integers(0, 3, (50, 60), np.uint8)
    pairs = zip(masks_of(ForegroundCrop(16, 16), 20, mask), masks_of(A.RandomCrop(16, 16), 20, mask), strict=True)
    assert all((own == reference).all() for own, reference in pairs)
    volume = np.random.default_rng(0).integers(0, 3, (20, 30, 40), np.uint8)
    own, reference = (masks_of(crop, 10, volume) for crop in (ForegroundCrop3D((8, 8, 8)), A.RandomCrop3D((8, 8, 8))))
    assert all((a == b).all() for a, b in zip(own, reference, strict=True))


@pytest.mark.parametrize("value", [-0.1, 1.5, "a"])
def test_an_invalid_fraction_is_refused(value):
    with pytest.raises(ValueError, match="foreground"):
        ForegroundCrop(16, 16, foreground=value)


def test_the_key_of_the_config_reaches_the_crops_and_a_checkpoint_may_name_them(five):
    composed = config("data=folder", f"data.root={five}", "data.source.classes=[a,b]", "data.crop.foreground=0.5")
    check_targets(composed.data)
    data = build_data(composed)
    data.read()
    dataset = data.dataset("train")
    assert isinstance(dataset, SegmentationDataset)
    assert [step.foreground for step in dataset.transform if isinstance(step, ForegroundCrop)] == [0.5]
