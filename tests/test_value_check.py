"""Conversions of an image to the form of the training images, and warnings of doubtful ones."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config
from folders import folder_of, noise, scanned
from networks import network
from PIL import Image

from unet.errors import UserError
from unet.inference.image_values import convert_channels, mark_missing
from unet.network.normalization import apply_gamma
from unet.training.build import channel_difference, checkpoint_metadata

BYTES = {"dtype": "uint8", "range": [0.0, 255.0]}
COLOR, GREY = noise(33, 40, 3), noise(33, 40)


def convert(image: np.ndarray, in_channels: int, mode: str | None = None, **description: Any) -> np.ndarray:
    description = {"model": {"in_channels": in_channels}, "reading": {"mode": mode}, **description}
    return convert_channels(torch.from_numpy(image), description).numpy()


def with_alpha(image: np.ndarray, alpha: int | np.ndarray = 255) -> np.ndarray:
    image = image.reshape(33, 40, -1)
    return np.concatenate([image, np.broadcast_to(alpha, (33, 40, 1)).astype(image.dtype)], -1)


def messages_of(model: Any, image: np.ndarray, **options: Any) -> list[str]:
    """Return the warnings of a prediction."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict(image, **options)
    return [str(warning.message) for warning in caught if "bottleneck" not in str(warning.message)]


@pytest.mark.parametrize("file_mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_array_is_converted_as_pillow_converts_the_files_of_the_training(mode: str, file_mode: str):
    image = Image.fromarray(COLOR).convert(file_mode)
    shown = image.convert("RGB") if file_mode in ("P", "CMYK") else image
    converted = convert(np.array(shown).reshape(33, 40, -1), len(mode), mode, **BYTES)
    assert converted.dtype == np.uint8
    assert np.array_equal(converted, np.asarray(image.convert(mode)).reshape(33, 40, -1))


def test_other_exact_conversions():
    equal = np.stack([GREY] * 3, -1)
    assert np.array_equal(convert(equal, 1)[..., 0], GREY)
    assert np.array_equal(convert(with_alpha(equal), 1)[..., 0], GREY)
    assert np.array_equal(convert(equal.astype(np.uint16), 1)[..., 0], GREY)
    binary = (GREY > 99)[..., None]
    assert np.array_equal(convert(binary, 1, **BYTES), 255 * binary)
    with pytest.raises(UserError, match="3 channels, but the network was trained on 1"):
        convert(COLOR, 1)
    with pytest.raises(UserError, match=r"1 channels, but the network was trained on 3, each in a file \(a, b, c\)"):
        convert(GREY[..., None], 3, channel_names=["a", "b", "c"])


def test_a_dropped_alpha_channel_is_warned_of_unless_it_is_opaque_or_the_training_dropped_it(tmp_path: Path):
    transparent = with_alpha(COLOR, noise(33, 40, 1))
    (message,) = messages_of(network(tmp_path), transparent)
    assert "it is not opaque: its values are from 0 to 255" in message
    assert messages_of(network(tmp_path), with_alpha(COLOR, 0)) != []
    assert messages_of(network(tmp_path), with_alpha(COLOR)) == []
    assert messages_of(network(tmp_path, reading={"mode": "RGB"}), transparent) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((33, 40, 3), 7, np.uint8), "every value of the image is 7"),
        (COLOR * np.uint8([1, 1, 0]), "channel 3 is 0 in every pixel, unlike in the training images"),
    ],
)
def test_constant_images_and_channels_are_warned_of(tmp_path: Path, image: np.ndarray, message: str):
    assert [text[: len(message)] for text in messages_of(network(tmp_path, **BYTES), image)] == [message]


def test_a_channel_that_was_constant_in_training_is_not_warned_of(tmp_path: Path):
    opaque = {"mean": [128.0] * 3 + [255.0], "std": [64.0] * 3 + [1.0]}
    assert messages_of(network(tmp_path, 2, 4, reading={"mode": "RGBA"}, **opaque, **BYTES), COLOR) == []
    assert messages_of(network(tmp_path, **BYTES), COLOR[:1, :1]) == [], "one pixel is constant always"


def test_swapped_channels_are_warned_of(tmp_path: Path):
    """The first channel exceeds the last by 20 in training; by 17 in this image."""
    model = network(tmp_path, first_minus_last_channel=20.0, **BYTES)
    warm = (noise(33, 40, 3, below=200) + np.array([17, 8, 0])).astype(np.uint8)
    assert messages_of(model, warm) == messages_of(model, COLOR) == messages_of(model, GREY) == []
    (message,) = messages_of(model, warm[..., ::-1].copy(), tile=[32, 32])
    assert "look swapped (BGR for RGB)" in message
    with pytest.raises(UserError, match=r"look swapped .*strict=true"):
        model.predict(warm[..., ::-1].copy(), strict=True)


def test_the_description_has_the_difference_of_the_channels_only_if_it_is_clear(tmp_path: Path):
    data = scanned(folder_of(tmp_path, list("abcdef")), splits={"train": 5.0, "val": 1.0})
    samples = data.samples["train"]
    assert channel_difference(samples, 70) is None, "noise"
    for index, (image, target) in samples.cache.items():
        samples.cache[index] = (image // 2 + np.uint8([20, 0, 0]), target)
    assert channel_difference(samples, 70) == pytest.approx(20, abs=3)
    assert channel_difference(samples, 250) is None, "below a tenth of the deviation of the pixels"
    assert channel_difference(samples, 70, least=6) is None


def test_an_image_far_darker_than_every_training_image_is_in_other_units(tmp_path: Path):
    """8-bit values for a network of 12-bit images, in a type that does not tell: as integers, floats, with NaN."""
    units = {"dtype": "uint16", "range": [100.0, 3600.0], "smallest_maximum": 3000.0}
    model = network(tmp_path, **units)
    image = noise(64, 64, 3)
    missing = np.where(np.arange(64)[:, None, None] < 6, np.nan, image)
    for other in (image.astype(np.uint16), image.astype(np.int16), image.astype(np.float64), missing):
        (message,) = messages_of(model, other)
        assert "but the network was trained on uint16 images" in message
    assert messages_of(model, image.astype(np.uint16) * 4) == []


def test_a_rounded_value_for_no_data_is_found_in_an_array():
    pixels = torch.tensor([[1.0], [torch.finfo(torch.float32).min]])
    assert mark_missing(pixels, -3.4e38).isnan().flatten().tolist() == [False, True]
    assert not mark_missing(torch.tensor([[-9999.5]]), -9999.0).isnan().any()


def test_a_checkpoint_describes_the_training_images(tmp_path: Path):
    root = folder_of(tmp_path, list("abcd"))
    data = scanned(root, mode="L", splits={"train": 3.0, "val": 1.0})
    overrides = [f"data.root={root}", "data.source.mode=L", "data.source.classes=[background,cell]", "model.depth=1"]
    described = checkpoint_metadata(config("data=folder", *overrides), data)
    assert (described["reading"]["mode"], described["dtype"], described["color_order"]) == ("L", "uint8", "RGB")
    highest = [data.samples["train"][index][0].max() for index in range(3)]
    assert described["smallest_maximum"] == min(highest)
    assert described["orientation"] == "as stored" and described["first_minus_last_channel"] is None
    torch.save(described, tmp_path / "described")
    assert torch.load(tmp_path / "described", weights_only=True) == described, "plain values"


@pytest.mark.parametrize("transforms", [[], [{"_target_": "albumentations.Resize", "height": 24, "width": 40}]])
@pytest.mark.parametrize("options", [{}, {"tile": [16, 16]}, {"tta": True}])
def test_with_a_threshold_the_label_is_1_where_its_probability_exceeds_it(
    tmp_path: Path, options: dict, transforms: list
):
    two = {"classes": ["sky", "sea"], "colors": [[0, 0, 0], [9, 9, 9]], "eval_transforms": transforms}
    model = {"in_channels": 3, "num_classes": 2, "width": 4, "depth": 2, "spatial_dims": 2}
    network_ = network(tmp_path, model=model, **two)
    options = {"precision": "32-true", **options}
    labels, probabilities = network_.predict(COLOR, probabilities=True, **options)
    scores = probabilities[..., 1].astype(np.float64)
    threshold = float(np.quantile(scores, 0.7))
    thresholded, near = network_.predict(COLOR, threshold=threshold, **options), np.abs(scores - threshold) < 3e-4
    assert np.array_equal(thresholded[~near], (scores > threshold)[~near]) and near.mean() < 0.4
    assert 0.2 < thresholded.mean() < 0.4
    if not transforms:
        assert np.array_equal(network_.predict(COLOR, threshold=0.5, **options), labels)


@pytest.mark.parametrize("gamma", [0.5, 1 / 2.2, 1.0, 2.2])
def test_the_brightness_of_a_training_is_applied_to_images_as_stored(tmp_path: Path, gamma: float):
    table = (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)  # as unet.data.blue_marble
    stored = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(apply_gamma(stored, gamma), table)
    image = noise(20, 30, 3)
    model = network(tmp_path, gamma=gamma)
    labels = model.predict(image)
    del model.description["gamma"]
    assert np.array_equal(labels, model.predict(table[image]))
