"""Loggers: files of a run, several at once, images, and messages for what is not installed."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES, config
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from test_training import event_files

from unet.errors import UserError
from unet.training import loggers
from unet.training.callbacks.tensorboard import PredictionImages
from unet.training.config_limits import LOGGER, validate_config
from unet.training.loggers import LOGGERS, log_image, make_loggers
from unet.training.train import train


def test_the_names_of_the_config_are_those_of_the_table():
    assert set(LOGGER.names) == set(LOGGERS)
    assert config().logger == "tensorboard" and f"# {' | '.join(LOGGERS)}, or" in Path("configs/train.yaml").read_text()


@pytest.mark.parametrize("value", ["tensorbord", "[]", "[csv,nothing]", "3", "null"])
def test_an_unknown_logger_is_refused(value: str):
    with pytest.raises(UserError, match=r"logger: .*tensorboard, csv, wandb"):
        validate_config(config(f"logger={value}"))


def test_a_run_logs_to_several_loggers(composed, tmp_path: Path):
    train(composed("logger=[tensorboard,csv]", *IMAGES), tmp_path)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    text = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    names = {name for row in rows for name, value in row.items() if value}
    assert {"val/miou", "train/loss", "val/loss", "final/miou", "step", "epoch"} <= names


def test_a_run_without_tensorboard_writes_no_events_and_draws_no_images(
    composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PredictionImages, "images", lambda *args: pytest.fail("no logger takes images"))
    train(composed("logger=csv", *IMAGES), tmp_path)
    assert not list(tmp_path.glob("events.*")) and (tmp_path / "csv" / "version_0" / "hparams.yaml").is_file()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(loggers, "WandbLogger", missing)
    with pytest.raises(UserError, match="logger=wandb: No module named 'wandb'; pip install wandb"):
        make_loggers(["csv", "wandb"], tmp_path)


def test_images_go_to_the_loggers_that_take_images(tmp_path: Path):
    calls = []

    class Wandb(WandbLogger):
        def __init__(self):
            pass

        def log_image(self, key, images, step=None, **options):
            calls.append((key, images[0].shape, step))

    log_image([Wandb(), CSVLogger(tmp_path)], "val/0", np.zeros((4, 5, 3), np.uint8), 7)
    assert calls == [("val/0", (4, 5, 3), 7)]


def test_tensorboard_has_the_pixels_of_an_image_also_after_the_writer_was_closed(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    (logger,) = make_loggers("tensorboard", tmp_path)
    for step in (7, 8):
        log_image([logger], "val/0", pixels, step)
        logger.finalize("success")
    events = [image for file in event_files(tmp_path) for image in file.Images("val/0")]
    assert sorted(image.step for image in events) == [7, 8]
    for image in events:
        assert (image.height, image.width) == (4, 5)
        assert (np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) == pixels).all()
