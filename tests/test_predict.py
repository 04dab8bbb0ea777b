"""Prediction of one image in memory: sizes, data types, channels, options, test-time augmentation, transforms."""

import dataclasses
import inspect
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from folders import noise, sentence
from networks import network

from unet.errors import UserError
from unet.inference.image_values import as_tensor
from unet.inference.options import PredictOptions
from unet.inference.preprocessing import apply_eval_transforms
from unet.inference.segmenter import DEFAULT_TILE, Segmenter, default_overlap, plan_tiles
from unet.inference.tta import flips_and_rotations, with_tta

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

FLOAT32 = {"precision": "32-true"}
SIZES = {1: (301,), 2: (45, 70), 3: (13, 22, 18)}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2", "int64"])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_labels_and_probabilities_are_those_of_the_network(tmp_path: Path, spatial_dims: int, dtype: str):
    model = network(tmp_path, spatial_dims)
    image = noise(*SIZES[spatial_dims], 3, dtype=dtype)
    with torch.no_grad():
        logits = model(torch.from_numpy(image.astype(np.float32)).movedim(-1, 0)[None])[0]
    labels, probabilities = model.predict(image, probabilities=True, **FLOAT32)
    assert labels.dtype == np.uint8 and np.array_equal(labels, logits.argmax(0)) and len(np.unique(labels)) == 3
    assert np.abs(probabilities.astype(np.float32) - logits.softmax(0).movedim(0, -1).numpy()).max() < 1e-3
    tensor_labels = model.predict(torch.from_numpy(image.astype(np.float32)), **FLOAT32)
    assert isinstance(tensor_labels, torch.Tensor) and np.array_equal(tensor_labels, labels)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_tiles_give_the_labels_of_the_complete_image(tmp_path: Path, spatial_dims: int):
    model = network(tmp_path, spatial_dims, channels=1)
    size, tile = {1: ((4001,), [256]), 2: ((203, 318), [96, 96]), 3: ((50, 61, 70), [48, 48, 48])}[spatial_dims]
    image = noise(*size)
    assert len(plan_tiles(model, size, PredictOptions(tile=tile))) > 3
    tiled = model.predict(image, tile=tile, batch=3, **FLOAT32)
    assert (model.predict(image, **FLOAT32) == tiled).mean() > 0.99  # a random network has many near-ties on noise


def test_default_tiles_are_those_of_the_evaluation_or_of_a_million_pixels_and_overlap_by_the_field(tmp_path: Path):
    model = network(tmp_path)
    assert plan_tiles(model, (1024, 1024), PredictOptions()).starts == ((0,), (0,))
    tiles = plan_tiles(model, (3000, 500), PredictOptions())
    assert tiles.tile == (DEFAULT_TILE[2], 500) and 1024 - tiles.starts[0][1] >= model.field[0] == 44
    evaluated = network(tmp_path, eval_tile=[64, 32], eval_overlap=0.5)
    assert plan_tiles(evaluated, (640, 640), PredictOptions()).tile == (64, 32)
    assert plan_tiles(evaluated, (640, 640), PredictOptions()).starts[1][1] == 16
    assert plan_tiles(evaluated, (640, 640), PredictOptions(tile=[128, 128])).tile == (128, 128)
    assert plan_tiles(model, (640, 640), PredictOptions(tile=[64, 64], overlap=0)).starts[0] == tuple(range(0, 640, 64))
    assert default_overlap([100, 100, 100], [30, 80, float("inf")]) == [30, 50, 25]


def test_grey_is_repeated_and_alpha_dropped_and_other_channels_are_refused(tmp_path: Path):
    model = network(tmp_path)
    grey, color = noise(33, 40), noise(33, 40, 3)
    repeated, opaque = model.predict(np.stack([grey] * 3, -1)), np.full((33, 40, 1), 255, np.uint8)
    for image in (grey, grey[..., None], np.stack([grey, opaque[..., 0]], -1)):
        assert np.array_equal(model.predict(image), repeated)
    with_alpha = np.concatenate([color, opaque], -1)
    assert np.array_equal(model.predict(with_alpha), model.predict(color))
    with pytest.raises(UserError, match="5 channels, but the network was trained on 3"):
        model.predict(noise(33, 40, 5))
    with pytest.raises(UserError, match="convert it to grey"):
        network(tmp_path, channels=1).predict(color)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((2, 9, 9, 3), np.uint8), {}, "2 x 9 x 9 x 3: expected 2 axes"),
        (np.zeros((0, 9, 3), np.uint8), {}, "none of them empty"),
        (np.zeros((9, 9), "U3"), {}, "expected an array of real numbers"),
        (np.full((9, 9, 3), np.inf), {}, "infinite"),
        (np.zeros((9, 9, 3)), {"tile": [8]}, "tile: expected null or 2 integers"),
        (np.zeros((9, 9, 3)), {"overlap": 1}, "overlap: expected a fraction"),
        (np.zeros((9, 9, 3)), {"batch": 0}, "batch: expected an integer of at least 1"),
        (np.zeros((9, 9, 3)), {"precision": "16"}, "precision: expected one of auto"),
        (np.zeros((9, 9, 3)), {"threshold": 1}, "threshold: expected null or a number between 0 and 1, found 1"),
        (np.zeros((9, 9, 3)), {"threshold": 0.3}, "two classes; this one has 3: sky, sea, land"),
        (np.zeros((3, 9, 9)), {}, "3 x 9 x 9 looks channels first; expected the channels last, colours as RGB"),
        (np.zeros((1, 9, 9)), {}, "1 x 9 x 9 looks channels first"),
    ],
)
def test_an_invalid_image_or_option_is_refused(tmp_path: Path, image: np.ndarray, options: dict, message: str):
    with pytest.raises(UserError) as error:
        network(tmp_path).predict(image, **options)
    sentence(error, message)


BYTES, DEEP, FLOATS = ("uint8", [0.0, 255.0]), ("uint16", [10.0, 4000.0]), ("float32", [-1000.0, 3000.0])


@pytest.mark.parametrize(
    ("trained", "image"),
    [
        (BYTES, noise(33, 40, 3) / np.float32(255)),
        (BYTES, noise(33, 40, 3).astype(np.float32) - 128),
        (BYTES, noise(33, 40, 3, below=4000, dtype="uint16")),
        (DEEP, noise(33, 40, 3)),
        (DEEP, noise(33, 40, 3) / 255),
        (FLOATS, noise(33, 40, 3) / 255),
        (("float32", [0.0, 1.0]), noise(33, 40, 3)),
        (BYTES, noise(33, 40, 3, below=2)),
        (("uint8", [0.0, 60.0]), noise(33, 40, 3, below=2) / np.float32(1)),
        (BYTES, noise(33, 40, 3).astype(np.int16) * 8 - 1024),
        (("uint16", [0.0, 4000.0]), noise(33, 40, 3, below=65535, dtype="uint16")),
        (DEEP, noise(33, 40, 3, below=40, dtype="uint16")),
        (FLOATS, noise(33, 40, 3)),
        (FLOATS, noise(33, 40, 3, below=4000, dtype="uint16")),
        (FLOATS, noise(33, 40, 3).astype(np.int16) - 9999),
        (("float32", [0.0, 1.0]), noise(33, 40, 3).astype(np.float32) / 127 - 1),
    ],
)
def test_an_image_in_other_units_than_the_training_s_is_warned_of(tmp_path: Path, trained: tuple, image: np.ndarray):
    model = network(tmp_path, dtype=trained[0], range=trained[1])
    with pytest.warns(
        UserWarning, match=f"trained on {trained[0]} images with values from .* rescale the image"
    ) as warnings:
        model.predict(image, tile=[32, 32])
    assert len(warnings) == 1 and str(warnings[0].message).startswith(f"{image.dtype} values from")
    with pytest.raises(UserError, match=r"rescale the image .*refused because of strict=true"):
        model.predict(image, tile=[32, 32], strict=True)


@pytest.mark.parametrize(
    ("trained", "image"),
    [
        (BYTES, noise(33, 40, 3)),
        (BYTES, noise(33, 40, 3, below=4)),
        (BYTES, noise(33, 40, 3).astype(np.float64)),
        (BYTES, noise(33, 40, 3, dtype="uint16")),
        (("uint8", [0.0, 1.0]), noise(33, 40, 3, below=2).astype(np.float32)),
        (DEEP, noise(33, 40, 3, below=60, dtype="uint16")),
        (("uint16", [0.0, 200.0]), noise(33, 40, 3)),
        (FLOATS, noise(33, 40, 3).astype(np.float32) - 1000),
        (FLOATS, noise(33, 40, 3, below=4000, dtype="int16")),
        (("float32", [0.0, 1.0]), noise(33, 40, 3) / np.float32(200)),
    ],
)
def test_a_dark_image_or_a_wider_data_type_gives_no_warning(tmp_path: Path, trained: tuple, image: np.ndarray):
    """Warnings are errors in these tests."""
    network(tmp_path, dtype=trained[0], range=trained[1]).predict(image)


def test_an_unknown_option_names_the_nearest_and_the_signature_lists_them_all(tmp_path: Path):
    with pytest.raises(TypeError, match=r"predict: no option 'tiel'; did you mean tile\? \(valid: tile, overlap, tta,"):
        network(tmp_path).predict(noise(33, 40, 3), tiel=[8, 8])
    parameters = inspect.signature(Segmenter.predict).parameters
    assert {field.name: field.default for field in dataclasses.fields(PredictOptions)} == {
        name: parameter.default for name, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_with_tta_the_labels_are_flipped_and_rotated_with_the_image(tmp_path: Path, spatial_dims: int):
    model = network(tmp_path, spatial_dims).double()
    size = {1: (64,), 2: (32, 32), 3: (16, 16, 16)}[spatial_dims]
    image, net = torch.rand(1, 3, *size, dtype=torch.float64), with_tta(model.net, spatial_dims)
    assert len(set(flips_and_rotations(spatial_dims))) == {1: 2, 2: 8, 3: 8}[spatial_dims]
    with torch.no_grad():
        logits = net(image)
        for transposed, axes in flips_and_rotations(spatial_dims):
            view, expected = ((x.transpose(2, 3) if transposed else x).flip(axes) for x in (image, logits))
            torch.testing.assert_close(net(view), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(model.net(image), logits.to(torch.float64), atol=1e-3)
    array = noise(*size, 3)
    labels = network(tmp_path, spatial_dims).predict(array, tta=True, **FLOAT32)
    assert (network(tmp_path, spatial_dims).predict(array[::-1], tta=True, **FLOAT32) == labels[::-1]).mean() > 0.995


PAD = {"_target_": "albumentations.PadIfNeeded"}
PIPELINES = [
    [{"_target_": "albumentations.Resize", "height": 24, "width": 40}],
    [{"_target_": "albumentations.LongestMaxSize", "max_size": 32}, PAD | {"min_height": 32, "min_width": 33}],
    [{"_target_": "albumentations.SmallestMaxSize", "max_size": 70, "p": 1, "mask_interpolation": 0}],
    [PAD | {"min_height": 64, "min_width": 99, "fill": 3, "fill_mask": 255}],
]


@pytest.mark.parametrize("transforms", PIPELINES, ids=lambda transforms: transforms[0]["_target_"])
@pytest.mark.parametrize("size", [(45, 70), (61, 29)])
def test_evaluation_transforms_equal_those_of_albumentations(transforms: list[dict], size: tuple[int, int]):
    image = noise(*size, 3)
    pipeline = A.Compose(
        [getattr(A, t["_target_"].split(".")[1])(**{k: t[k] for k in t if k != "_target_"}) for t in transforms]
    )
    expected = pipeline(image=image)["image"].astype(int)
    output, undo = apply_eval_transforms(torch.from_numpy(image).movedim(-1, 0)[None], transforms)
    assert output.shape[2:] == expected.shape[:2]
    assert np.abs(output[0].movedim(0, -1).numpy() - expected).max() <= 1  # OpenCV interpolates with integers
    assert undo(torch.zeros(1, 2, *output.shape[2:])).shape == (1, 2, *size)


def test_undoing_a_padding_returns_the_image():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    padded, undo = apply_eval_transforms(image, PIPELINES[3])
    assert torch.equal(undo(padded), image) and (padded == 3).sum() == 64 * 99 - 12 + 1


def test_labels_of_a_resized_image_have_its_original_size(tmp_path: Path):
    model = network(tmp_path, eval_transforms=[{"_target_": "albumentations.Resize", "height": 20, "width": 30}])
    image = np.zeros((80, 120, 3), np.uint8)
    image[:, 60:] = 255
    labels, probabilities = model.predict(image, probabilities=True)
    assert labels.shape == (80, 120) and probabilities.shape == (80, 120, 3)
    assert np.abs(probabilities.astype(float).sum(-1) - 1).max() < 2e-3
    assert (probabilities.argmax(-1) == labels).mean() > 0.9
    assert np.array_equal(model.predict(image, transforms=False), network(tmp_path).predict(image))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"_target_": "os.system", "command": "touch ran"},
            "contains os.system, which prediction does not",
        ),
        (
            {"_target_": "albumentations.CenterCrop", "height": 8, "width": 8},
            "CenterCrop, which prediction does",
        ),
        ({"_target_": "albumentations.Resize", "height": 8, "width": 8, "interpolation": 0}, "interpolation=0"),
        (
            {"_target_": "albumentations.Resize", "height": 8, "width": 8, "p": 0.5},
            "random transforms are not",
        ),
        ({"_target_": "albumentations.PadIfNeeded", "pad_height_divisor": 8}, "pad_height_divisor"),
    ],
)
def test_an_unsupported_transform_is_refused_and_not_called(tmp_path: Path, monkeypatch, transform: dict, message: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        network(tmp_path, eval_transforms=[transform]).predict(noise(33, 40, 3))
    sentence(error, message, "transforms=false")
    assert not (tmp_path / "ran").exists()


def test_a_read_only_array_gives_no_warning():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image.flags.writeable = False
    assert as_tensor(image).tolist() == [[0, 1, 2], [3, 4, 5]]
