"""Tests of the settings that the data check suggests."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, config
from folders import CLASSES, noise, save
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from unet import DOWN, UP
from unet.data.folder import Folder
from unet.data_check.suggest import STRUCTURES, crop_and_depth, data_structure, format_commands, suggest_settings
from unet.data_check.survey import Survey, survey_data
from unet.training.build import build_data, build_task


def write_folder(root: Path, draw, sides=(200, 260, 320), count: int = 12) -> Path:
    """Write images of several sizes with masks of 0 and 255 that ``draw`` fills."""
    for index in range(count):
        mask = np.zeros((sides[index % len(sides)], sides[-1]), np.uint8)
        draw(mask)
        save(root / "images" / f"{index}.png", noise(*mask.shape, seed=index))
        save(root / "masks" / f"{index}.png", mask)
    return root


def squares(side: int):
    def draw(mask: np.ndarray) -> None:
        for top in range(4, mask.shape[0] - side, 2 * side):
            for left in range(4, mask.shape[1] - side, 2 * side):
                mask[top : top + side, left : left + side] = 255

    return draw


def lines(mask: np.ndarray) -> None:
    mask[10::40, 5:-5] = 255
    mask[11::40, 5:-5] = 255


def survey_folder(root: Path) -> Survey:
    return survey_data(Folder(str(root), classes=CLASSES), has_classes=False)


@pytest.mark.parametrize("draw, name", [(lines, "thin"), (squares(12), "small"), (squares(60), "large")])
def test_objects_determine_the_suggested_operators(tmp_path, draw, name):
    kind = data_structure(survey_folder(write_folder(tmp_path, draw)))
    assert kind is not None and kind.name == name


def test_suggested_operators_exist_and_are_documented():
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for kind in STRUCTURES:
        assert set(kind.down) <= set(DOWN) and set(kind.up) <= set(UP)
        assert kind.down[0] == config().model.down and kind.up[0] == config().model.up
        assert [name for name in (*kind.down, *kind.up) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("side, expected", [(12, (128, 2)), (24, (128, 3)), (60, (128, 4)), (100, (256, 5))])
def test_crop_and_depth_increase_with_the_size_of_objects(tmp_path, side, expected):
    """The receptive field of the bottleneck is 32, 68, 140 and 284 pixels at depths 2 to 5."""
    assert crop_and_depth(survey_folder(write_folder(tmp_path, squares(side)))) == expected


def test_a_small_image_limits_the_depth(tmp_path):
    write_folder(tmp_path, squares(60))
    save(tmp_path / "images" / "tiny.png", noise(7, 90))
    save(tmp_path / "masks" / "tiny.png", np.zeros((7, 90), np.uint8))
    assert crop_and_depth(survey_folder(tmp_path))[1] == 2


def test_rare_objects_get_crops_around_them(tmp_path):
    def one_square(mask: np.ndarray) -> None:
        mask[50:60, 50:60] = 255

    survey = survey_folder(write_folder(tmp_path, one_square, sides=(512,)))
    (found,) = (s for s in suggest_settings(survey) if s.overrides == ("data.crop.foreground=0.33",))
    assert found.reason == "a random crop has 0.062 objects on average; a third of the crops then has one"
    many = suggest_settings(survey_folder(write_folder(tmp_path / "many", squares(12))))
    assert not [s for s in many if "data.crop.foreground=0.33" in s.overrides]


def test_only_rare_classes_get_weights(tmp_path):
    def speck(mask: np.ndarray) -> None:
        mask[5:11, 5:11] = 255

    def overrides(root: Path) -> set[str]:
        return {override for suggestion in suggest_settings(survey_folder(root)) for override in suggestion.overrides}

    assert "data.class_weights=sqrt_median_frequency" in overrides(write_folder(tmp_path / "rare", speck))
    assert "data.class_weights=sqrt_median_frequency" not in overrides(write_folder(tmp_path / "common", squares(40)))


def test_the_commands_compose_and_the_network_runs_on_the_data(tmp_path):
    root = write_folder(tmp_path / "my data", squares(12))
    survey = survey_folder(root)
    kind = data_structure(survey)
    assert kind is not None
    train, sweep = format_commands(["data=folder", f"data.root={root}", "seed=3"], suggest_settings(survey), kind)
    words = shlex.split(sweep)
    assert words[:3] == ["python", "train.py", "-m"] and shlex.split(train)[:2] == words[:2]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words[3:]), None)
    assert len(jobs) == len(kind.down) * len(kind.up)
    for job in (jobs[0], jobs[-1]):
        composed = config(*job, "model.width=2")
        data = build_data(composed)
        data.scan()
        batch = next(iter(data.train_dataloader()))
        with torch.no_grad():
            logits = build_task(composed, data).net(batch["image"].float())
        assert logits.shape == (8, 2, 128, 128) and composed.seed == 3


def test_keys_of_the_user_are_not_suggested(tmp_path):
    survey = survey_folder(write_folder(tmp_path, squares(12)))
    overrides = ["data=folder", f"data.root={tmp_path}", "model.depth=5", "model.up=unpool"]
    train, sweep = format_commands(overrides, suggest_settings(survey), STRUCTURES[0])
    assert train.count("model.depth=") == 1 and "model.depth=5" in train
    assert "model.up=unpool" in sweep and "transposed" not in sweep


@pytest.mark.parametrize(("suffix", "suggested"), [(".npy", True), (".png", False)])
def test_windows_are_suggested_for_huge_images_in_files_that_can_be_read_in_parts(
    tmp_path, monkeypatch, suffix, suggested
):
    monkeypatch.setattr("unet.data_check.suggest.HUGE_IMAGE", 300 * 300)
    monkeypatch.setattr("unet.data_check.suggest.WINDOWS", {2: 128})
    write_folder(tmp_path, squares(60), count=6)
    for path in list(tmp_path.rglob("*.png")):
        pixels = np.asarray(Image.open(path))
        path.unlink()
        np.save(path.with_suffix(suffix), pixels) if suffix == ".npy" else save(path, pixels)
    overrides = [key for suggestion in suggest_settings(survey_folder(tmp_path)) for key in suggestion.overrides]
    assert ("data.source.window_size=128" in overrides) == suggested
    data = build_data(config("data=folder", f"data.root={tmp_path}", *overrides))
    assert (len(data.source.all_items()) > 6) == suggested
