"""A trained network's labels for one image: those of the network itself, for any size, type and number of channels."""

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

EXACT = {"precision": "32-true"}
SIZES = {1: (301,), 2: (45, 70), 3: (13, 22, 18)}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2", "int64"])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_an_array_gets_the_network_s_own_labels(tmp_path: Path, spatial_dims: int, dtype: str):
    model = network(tmp_path, spatial_dims)
    image = noise(*SIZES[spatial_dims], 3, dtype=dtype)
    with torch.no_grad():
        logits = model(torch.from_numpy(image.astype(np.float32)).movedim(-1, 0)[None])[0]
    labels, shares = model.predict(image, probabilities=True, **EXACT)
    assert labels.dtype == np.uint8 and np.array_equal(labels, logits.argmax(0)) and len(np.unique(labels)) == 3
    torch.testing.assert_close(torch.from_numpy(shares).float().movedim(-1, 0), logits.softmax(0), atol=1e-3, rtol=0)
    as_tensor = model.predict(torch.from_numpy(image.astype(np.float32)), **EXACT)
    assert isinstance(as_tensor, torch.Tensor) and np.array_equal(as_tensor, labels)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_tiles_give_the_labels_of_the_whole(tmp_path: Path, spatial_dims: int):
    model = network(tmp_path, spatial_dims, channels=1)
    size, tile = {1: ((4001,), [256]), 2: ((203, 318), [96, 96]), 3: ((50, 61, 70), [48, 48, 48])}[spatial_dims]
    image = noise(*size)
    whole, parts = model.predict(image, **EXACT), model.predict(image, tile=tile, batch=3, **EXACT)
    assert len(plan_tiles(model, size, PredictOptions(tile=tile))) > 3
    assert (whole == parts).mean() > 0.99, "a random network on noise is near a tie everywhere; real ones do better"


def test_the_tiles_are_the_evaluation_s_or_as_large_as_a_million_samples_and_overlap_by_the_field(tmp_path: Path):
    model = network(tmp_path)
    assert plan_tiles(model, (1024, 1024), PredictOptions()).starts == ((0,), (0,))
    laid = plan_tiles(model, (3000, 500), PredictOptions())
    assert laid.tile == (DEFAULT_TILE[2], 500) and 1024 - laid.starts[0][1] >= model.field[0] == 44
    told = network(tmp_path, eval_tile=[64, 32], eval_overlap=0.5)
    assert plan_tiles(told, (640, 640), PredictOptions()).tile == (64, 32)
    assert plan_tiles(told, (640, 640), PredictOptions()).starts[1][1] == 16
    assert plan_tiles(told, (640, 640), PredictOptions(tile=[128, 128])).tile == (128, 128)
    assert plan_tiles(model, (640, 640), PredictOptions(tile=[64, 64], overlap=0)).starts[0] == tuple(range(0, 640, 64))
    assert default_overlap([100, 100, 100], [30, 80, float("inf")]) == [30, 50, 25]


def test_grey_is_repeated_and_alpha_dropped_and_nothing_else_is_guessed(tmp_path: Path):
    model = network(tmp_path)
    grey, color = noise(33, 40), noise(33, 40, 3)
    repeated = model.predict(np.stack([grey] * 3, -1))
    for same in (grey, grey[..., None], np.stack([grey, 255 - grey], -1)):
        assert np.array_equal(model.predict(same), repeated)
    with_alpha = np.concatenate([color, noise(33, 40, 1)], -1)
    assert np.array_equal(model.predict(with_alpha), model.predict(color))
    for wrong in (5, 7):
        with pytest.raises(UserError, match=f"{wrong} channels, but the network was trained on 3"):
            model.predict(noise(33, 40, wrong))
    (tmp_path / "grey").mkdir()
    with pytest.raises(UserError, match="convert it to grey"):
        network(tmp_path / "grey", channels=1).predict(color)


@pytest.mark.parametrize(
    ("image", "how", "words"),
    [
        (np.zeros((2, 9, 9, 3), np.uint8), {}, "2 x 9 x 9 x 3: expected 2 axes"),
        (np.zeros((0, 9, 3), np.uint8), {}, "none of them empty"),
        (np.zeros((9, 9), "U3"), {}, "expected an array of numbers"),
        (np.full((9, 9, 3), np.nan), {}, "NaN or infinite"),
        (np.zeros((9, 9, 3)), {"tile": [8]}, "tile: expected null or 2 integers"),
        (np.zeros((9, 9, 3)), {"overlap": 1}, "overlap: expected a share"),
        (np.zeros((9, 9, 3)), {"batch": 0}, "batch: expected an integer of at least 1"),
        (np.zeros((9, 9, 3)), {"precision": "16"}, "precision: expected one of auto"),
    ],
)
def test_what_cannot_be_predicted_is_said(tmp_path: Path, image: np.ndarray, how: dict, words: str):
    with pytest.raises(UserError) as error:
        network(tmp_path).predict(image, **how)
    sentence(error, words)


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
    ],
)
def test_an_image_in_other_units_than_the_training_s_is_warned_of(tmp_path: Path, trained: tuple, image: np.ndarray):
    model = network(tmp_path, dtype=trained[0], range=trained[1])
    with pytest.warns(
        UserWarning, match=f"trained on {trained[0]} images with values from .* rescale the image"
    ) as seen:
        model.predict(image, tile=[32, 32])
    assert len(seen) == 1 and f"holds {image.dtype} values from" in str(seen[0].message)


@pytest.mark.parametrize(
    ("trained", "image"),
    [
        (BYTES, noise(33, 40, 3)),
        (BYTES, noise(33, 40, 3, below=2)),
        (BYTES, np.zeros((33, 40, 3), np.float32)),
        (BYTES, noise(33, 40, 3).astype(np.float64)),
        (BYTES, noise(33, 40, 3, dtype="uint16")),
        (("uint8", [0.0, 1.0]), noise(33, 40, 3, below=2).astype(np.float32)),
        (DEEP, noise(33, 40, 3, below=40, dtype="uint16")),
        (("uint16", [0.0, 200.0]), noise(33, 40, 3)),
        (FLOATS, noise(33, 40, 3).astype(np.float32) - 1000),
        (FLOATS, noise(33, 40, 3, below=4000, dtype="int16")),
        (("float32", [0.0, 1.0]), noise(33, 40, 3) / np.float32(200)),
    ],
)
def test_an_image_that_is_only_dark_or_of_a_wider_type_is_not_warned_of(
    tmp_path: Path, trained: tuple, image: np.ndarray
):
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
def test_with_all_views_labels_turn_with_the_image(tmp_path: Path, spatial_dims: int):
    model = network(tmp_path, spatial_dims).double()
    size = {1: (64,), 2: (32, 32), 3: (16, 16, 16)}[spatial_dims]
    image, net = torch.rand(1, 3, *size, dtype=torch.float64), with_tta(model.net, spatial_dims)
    assert len(set(flips_and_rotations(spatial_dims))) == {1: 2, 2: 8, 3: 8}[spatial_dims]
    with torch.no_grad():
        found = net(image)
        for turned, mirrored in flips_and_rotations(spatial_dims):
            view = (image.transpose(2, 3) if turned else image).flip(mirrored)
            torch.testing.assert_close(
                net(view), (found.transpose(2, 3) if turned else found).flip(mirrored), atol=1e-5, rtol=0
            )
        assert not torch.allclose(model.net(image), found.to(torch.float64), atol=1e-3)
    picture = noise(*size, 3)
    labels = network(tmp_path, spatial_dims).predict(picture, tta=True, **EXACT)
    assert (network(tmp_path, spatial_dims).predict(picture[::-1], tta=True, **EXACT) == labels[::-1]).mean() > 0.995


STEPS = [
    [{"_target_": "albumentations.Resize", "height": 24, "width": 40}],
    [{"_target_": "albumentations.LongestMaxSize", "max_size": 32}, {"_target_": "albumentations.PadIfNeeded"}],
    [{"_target_": "albumentations.SmallestMaxSize", "max_size": 70, "p": 1, "mask_interpolation": 0}],
    [{"_target_": "albumentations.PadIfNeeded", "min_height": 64, "min_width": 99, "fill": 3, "fill_mask": 255}],
]
STEPS[1][1] |= {"min_height": 32, "min_width": 33}


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: steps[0]["_target_"])
@pytest.mark.parametrize("size", [(45, 70), (61, 29)])
def test_what_evaluation_does_first_is_what_albumentations_does(steps: list[dict], size: tuple[int, int]):
    image = noise(*size, 3)
    pipeline = A.Compose(
        [getattr(A, s["_target_"].split(".")[1])(**{k: s[k] for k in s if k != "_target_"}) for s in steps]
    )
    expected = pipeline(image=image)["image"].astype(int)
    found, undo = apply_eval_transforms(torch.from_numpy(image).movedim(-1, 0)[None], steps)
    assert found.shape[2:] == expected.shape[:2]
    assert np.abs(found[0].movedim(0, -1).numpy() - expected).max() <= 1  # OpenCV weighs in integers
    assert undo(torch.zeros(1, 2, *found.shape[2:])).shape == (1, 2, *size)


def test_a_padding_is_taken_off_where_it_was_put_on():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    found, undo = apply_eval_transforms(image, STEPS[3])
    assert torch.equal(undo(found), image) and (found == 3).sum() == 64 * 99 - 12 + 1


def test_a_resized_network_s_labels_have_the_image_s_size(tmp_path: Path):
    model = network(tmp_path, eval_transforms=[{"_target_": "albumentations.Resize", "height": 20, "width": 30}])
    image = np.zeros((80, 120, 3), np.uint8)
    image[:, 60:] = 255
    labels, shares = model.predict(image, probabilities=True)
    assert labels.shape == (80, 120) and shares.shape == (80, 120, 3)
    assert np.abs(shares.astype(float).sum(-1) - 1).max() < 2e-3
    assert (shares.argmax(-1) == labels).mean() > 0.9
    plain = model.predict(image, transforms=False)
    (tmp_path / "plain").mkdir()
    assert np.array_equal(plain, network(tmp_path / "plain").predict(image))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"_target_": "os.system", "command": "touch ran"}, "has os.system, which is none of"),
        ({"_target_": "albumentations.CenterCrop", "height": 8, "width": 8}, "CenterCrop, which is none of"),
        ({"_target_": "albumentations.Resize", "height": 8, "width": 8, "interpolation": 0}, "interpolation=0"),
        ({"_target_": "albumentations.Resize", "height": 8, "width": 8, "p": 0.5}, "left to chance"),
        ({"_target_": "albumentations.PadIfNeeded", "pad_height_divisor": 8}, "pad_height_divisor"),
    ],
)
def test_a_transform_that_is_not_in_the_table_is_refused_uncalled(tmp_path: Path, monkeypatch, step: dict, words: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        network(tmp_path, eval_transforms=[step]).predict(noise(33, 40, 3))
    sentence(error, words, "transforms=false")
    assert not (tmp_path / "ran").exists()


def test_an_image_that_may_not_be_written_to_is_taken_without_a_warning():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image.flags.writeable = False
    assert as_tensor(image).tolist() == [[0, 1, 2], [3, 4, 5]]
