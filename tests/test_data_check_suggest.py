"""What the check suggests: sizes from objects, lines that compose, sweeps of operators that exist."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, config
from folders import CLASSES, noise, save
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from unet import DOWN, UP
from unet.data.folder import Folder
from unet.data_check.suggest import STRUCTURES, crop_and_depth, data_structure, format_commands, suggest_settings
from unet.data_check.survey import Survey, survey_data
from unet.training.build import build_data, build_task


def drawn(root: Path, draw, sides=(200, 260, 320), count: int = 12) -> Path:
    """Images of several sizes whose masks, 0/255, ``draw`` fills."""
    for place in range(count):
        mask = np.zeros((sides[place % len(sides)], sides[-1]), np.uint8)
        draw(mask)
        save(root / "images" / f"{place}.png", noise(*mask.shape, seed=place))
        save(root / "masks" / f"{place}.png", mask)
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


def surveyed(root: Path) -> Survey:
    return survey_data(Folder(str(root), classes=CLASSES), named=False)


@pytest.mark.parametrize("draw, name", [(lines, "thin"), (squares(12), "small"), (squares(60), "large")])
def test_objects_decide_which_operators_are_tried(tmp_path, draw, name):
    kind = data_structure(surveyed(drawn(tmp_path, draw)))
    assert kind is not None and kind.name == name


def test_every_operator_suggested_exists_and_is_on_the_page_that_gives_the_reasons():
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for kind in STRUCTURES:
        assert set(kind.down) <= set(DOWN) and set(kind.up) <= set(UP)
        assert kind.down[0] == config().model.down and kind.up[0] == config().model.up
        assert [name for name in (*kind.down, *kind.up) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("side, expected", [(12, (128, 2)), (24, (128, 3)), (60, (128, 4)), (100, (256, 5))])
def test_crop_and_depth_grow_with_the_objects(tmp_path, side, expected):
    """Twice an object: the bottleneck sees 32, 68, 140 and 284 samples at depths 2 to 5, and keeps 8 of the crop."""
    assert crop_and_depth(surveyed(drawn(tmp_path, squares(side)))) == expected


def test_a_small_image_limits_the_depth(tmp_path):
    drawn(tmp_path, squares(60))
    save(tmp_path / "images" / "tiny.png", noise(7, 90))
    save(tmp_path / "masks" / "tiny.png", np.zeros((7, 90), np.uint8))
    assert crop_and_depth(surveyed(tmp_path))[1] == 2


def test_rare_classes_get_weights_and_common_ones_none(tmp_path):
    def speck(mask: np.ndarray) -> None:
        mask[5:11, 5:11] = 255

    def overrides(root: Path) -> set[str]:
        return {override for suggestion in suggest_settings(surveyed(root)) for override in suggestion.overrides}

    assert "data.class_weights=sqrt_median_frequency" in overrides(drawn(tmp_path / "rare", speck))
    assert "data.class_weights=sqrt_median_frequency" not in overrides(drawn(tmp_path / "common", squares(40)))


def test_the_lines_compose_and_the_network_runs_on_the_data(tmp_path):
    root = drawn(tmp_path / "my data", squares(12))
    found = surveyed(root)
    kind = data_structure(found)
    assert kind is not None
    train, sweep = format_commands(["data=folder", f"data.root={root}", "seed=3"], suggest_settings(found), kind)
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


def test_what_the_user_chose_stands(tmp_path):
    found = surveyed(drawn(tmp_path, squares(12)))
    given = ["data=folder", f"data.root={tmp_path}", "model.depth=5", "model.up=unpool"]
    train, sweep = format_commands(given, suggest_settings(found), STRUCTURES[0])
    assert train.count("model.depth=") == 1 and "model.depth=5" in train
    assert "model.up=unpool" in sweep and "transposed" not in sweep
