"""Ensembles: the mean of the probabilities of several networks, in Python and in the commands."""

from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import ROOT
from networks import checkpoint

from unet import load
from unet.errors import UserError
from unet.training.evaluate import trained_on_other_splits
from unet.training.train import train


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Write two networks of different depth, standardization and class weights."""
    models = []
    for name, options in {
        "a": {"mean": [100.0] * 3, "std": [50.0] * 3, "log_weights": [0.5, 0.0, -0.5]},
        "b": {"model": {"in_channels": 3, "num_classes": 3, "width": 4, "depth": 3, "spatial_dims": 2}},
    }.items():
        (tmp_path / name).mkdir()
        models.append(checkpoint(tmp_path / name, **options))
    return models


def test_the_probabilities_are_the_mean_of_those_of_the_networks(two: list[Path]):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    labels, scores = load(two).predict(image, probabilities=True, precision="32-true")
    single = [load(path).predict(image, probabilities=True, precision="32-true")[1].astype(float) for path in two]
    np.testing.assert_allclose(scores, (single[0] + single[1]) / 2, atol=2e-3)
    clear = np.ptp(np.sort((single[0] + single[1]) / 2, axis=2)[..., 1:], axis=2) > 1e-3
    assert (labels == np.argmax(single[0] + single[1], axis=2))[clear].all() and clear.mean() > 0.3
    assert load(two).net.total_stride == (8, 8)


def test_a_large_image_is_predicted_in_tiles_of_all_strides(two: list[Path]):
    image = np.random.default_rng(0).integers(0, 256, (200, 90, 3), np.uint8)
    whole, tiled = (load(two).predict(image, tile=tile, overlap=0.5) for tile in ([256, 256], [64, 96]))
    assert np.mean(whole == tiled) > 0.9


def test_one_or_equal_networks_are_that_network(two: list[Path]):
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    expected = load(two[1]).predict(image, precision="32-true")
    for paths in ([two[1]], [two[1], two[1]]):
        assert (load(paths).predict(image, precision="32-true") == expected).mean() > 0.999


@pytest.mark.parametrize(
    "difference, message",
    [
        (
            {"classes": ["a", "b", "c"]},
            r"b/best.ckpt cannot be averaged with .*a/best.ckpt: classes is \['a', 'b', 'c'\]",
        ),
        ({"gamma": 2.0}, "gamma is 2.0 there and None here; expected networks of the same data"),
        ({"channels": 1}, "in_channels is 1 there and 3 here"),
    ],
)
def test_networks_of_other_data_are_refused(two: list[Path], difference: dict, message: str):
    checkpoint(two[1].parent, **difference)
    with pytest.raises(UserError, match=message):
        load(two)


def test_no_network_is_no_ensemble():
    with pytest.raises(UserError, match="ckpt: an empty list; expected a checkpoint"):
        load([])


def test_other_divisions_of_the_images_are_recognized(tmp_path: Path):
    paths = [tmp_path / name / "checkpoints" / "best.ckpt" for name in "ab"]
    for path, fold in zip(paths, (0, 1), strict=True):
        path.parent.mkdir(parents=True)
        (path.parent.parent / "config.yaml").write_text(f"data: {{source: {{fold: {fold}, folds: 2}}}}\n")
    assert trained_on_other_splits(paths, "val") and not trained_on_other_splits(paths, "test")
    assert not trained_on_other_splits(paths[:1], "val")


@pytest.mark.slow
def test_predict_takes_several_checkpoints(composed, stack: Path, tmp_path: Path):
    paths = []
    for seed in (0, 1):
        train(composed(f"seed={seed}"), tmp_path / f"run{seed}")
        paths.append(tmp_path / f"run{seed}" / "checkpoints" / "best.ckpt")
    several = f"ckpt=[{paths[0]},{paths[1]}]"
    result = processes.run(
        [str(ROOT / "scripts/predict.py"), several, f"input={stack}/image", "output=labels"], tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "labels").glob("*.png"))) == 10
