"""Train on public data as published: UNET_TEST_DATA names a folder that holds ``camvid`` and ``isbi2012``."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import config

from unet import load
from unet.training.train import train

DATA = Path(os.environ.get("UNET_TEST_DATA", ""))
SMALL = (
    *("model.width=4", "model.depth=2", "trainer.max_steps=4", "data.batch_size=2", "data.samples_per_epoch=8"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "threads=1", "diagnostics=false", "optim.lr=0.01"),
    *("trainer.limit_val_batches=4", "trainer.limit_test_batches=4", "feature_maps=0", "num_logged_images=1"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("UNET_TEST_DATA"), reason="UNET_TEST_DATA names no folder of public data"),
]


@pytest.mark.parametrize(
    ("name", "classes", "split", "size"),
    [("camvid", 11, "val", (360, 480)), ("isbi2012", 2, "test", (512, 512))],
)
def test_a_training_reads_scores_and_predicts_the_published_files(name, classes, split, size, tmp_path):
    if not (DATA / name).is_dir():
        pytest.skip(f"UNET_TEST_DATA={DATA} holds no {name}")
    metrics = train(config(f"data={name}", f"data.root={DATA / name}", *SMALL), tmp_path)
    assert 0 < metrics[f"{split}/miou"] < 1 and 0 < metrics[f"{split}/accuracy"] <= 1
    model = load(tmp_path / "checkpoints" / "best.ckpt")
    assert len(model.classes) == classes
    channels = model.description["model"]["in_channels"]
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
    labels = model.predict(image)
    assert labels.shape == size and labels.max() < classes
