"""The colour histogram classifier: codes and scores by hand, and the scores and the warning of a run."""

import json
from functools import partial

import numpy as np
import pytest

from unet.data import SegmentationData
from unet.data.samples import Samples
from unet.data.source import Array, Item, Source, in_memory_pair
from unet.diagnostics import histogram_baseline
from unet.diagnostics.histogram_baseline import baseline_scores, colour_codes, colour_votes, value_span
from unet.training.train import train

X = 255


class InMemory(Source):
    """Pairs of image and target by split."""

    classes = ("sea", "land")

    def __init__(self, pairs: dict[str, list[tuple[Array, Array]]]):
        self.pairs, self.spatial_dims = pairs, next(iter(pairs.values()))[0][1].ndim

    def load_splits(self) -> dict[str, list[Item]]:
        return {
            split: [Item(str(number), partial(in_memory_pair, *pair)) for number, pair in enumerate(pairs)]
            for split, pairs in self.pairs.items()
        }


def in_memory(**pairs: list[tuple[Array, Array]]) -> SegmentationData:
    data = SegmentationData(InMemory(pairs), seed=0, batch_size=1, eval_batch_size=1)
    data.read()
    return data


def line(values: list[float], labels: list[int], dtype: str = "uint8") -> tuple[Array, Array]:
    return np.array(values, dtype)[:, None], np.array(labels, np.uint8)


def test_the_classes_of_every_colour_are_counted():
    image = np.array([[[0, 0, 0], [255, 255, 255]], [[0, 0, 7], [8, 0, 0]]], np.uint8)
    target = np.array([[0, 1], [1, X]], np.uint8)
    codes = colour_codes(image)
    assert codes.tolist() == [0, 31 + 31 * 32 + 31 * 32**2, 0, 1]  # 32 levels per channel
    votes = colour_votes(Samples([Item("image", lambda: (image, target))], 2, 2, 0, "train"), [0])
    assert votes[0].tolist() == [1, 1] and votes[codes[1]].tolist() == [0, 1] and votes.sum() == 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_the_scores_by_hand(spatial_dims, dtype, monkeypatch):
    """The value 10 is land in two of three training pixels, 20 is sea, 30 does not occur and is the first class."""
    monkeypatch.setattr(histogram_baseline, "BLOCK", 3)
    scale = {"uint8": 1, "uint16": 200, "float32": 0.001}[dtype]

    def pair(values: list[int], labels: list[int]) -> tuple[Array, Array]:
        image, target = line([scale * value for value in values], labels, dtype)
        shape = (1,) * (spatial_dims - 1) + target.shape
        return image.reshape(*shape, 1), target.reshape(shape)

    training, evaluated = (
        pair([10, 10, 10, 20, 20], [1, 1, 0, 0, X]),
        pair([10, 10, 10, 20, 30, 20], [1, 1, 1, 0, 1, X]),
    )
    scores = baseline_scores(in_memory(train=[training], val=[evaluated]))
    # 30 is clipped to the level of 20 unless the values are 8-bit; both are predicted as sea.
    assert scores["iou/land"] == 3 / 4 and scores["iou/sea"] == 1 / 2 and scores["miou"] == 5 / 8


def test_the_range_of_values_is_that_of_pixels_with_data():
    nan = float("nan")
    data = in_memory(train=[line([nan, -1, 0, 1], [0, 0, 0, 1], "float32")], val=[line([nan, 5], [1, 1], "float32")])
    span = value_span(data.samples["train"])
    assert span[0] == -1 and 1 < span[1] < 1.001
    assert colour_codes(np.array([[nan], [-7], [-1], [0], [1], [9]], np.float32), span).tolist() == [
        *(0, 0, 0, 127, 255, 255)
    ]
    assert baseline_scores(data)["iou/land"] == 1, "5 is clipped, the pixel without data does not count"


def test_a_training_counts_evenly_spaced_images_and_the_script_all(monkeypatch):
    pairs = [line([number], [number == 2]) for number in range(5)]
    data = in_memory(train=pairs, val=pairs)
    monkeypatch.setattr(histogram_baseline, "MAX_PIXELS", 3)
    assert baseline_scores(data)["miou"] == 1, "images 0, 2 and 4"
    monkeypatch.setattr(histogram_baseline, "MAX_IMAGES", 2)
    assert baseline_scores(data)["iou/land"] == 0, "images 0 and 4"
    assert baseline_scores(data, limit=False)["miou"] == 1


@pytest.mark.parametrize("miou", [0.1, 0.99])
def test_a_run_has_the_score_of_the_baseline_and_is_told_if_it_is_below(composed, tmp_path, capsys, monkeypatch, miou):
    scores = {"miou": 0.5, "dice": 0.6, "iou/cell": 0.4}
    monkeypatch.setattr("unet.training.train.evaluate", lambda *args: {"test/miou": miou, "test/images": 2})
    monkeypatch.setattr("unet.training.shared_data.baseline_scores", lambda data: scores)
    metrics = train(composed("trainer.max_steps=1"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert {name: value for name, value in metrics.items() if name.startswith("baseline/")} == {
        "baseline/miou": 0.5,
        "baseline/iou/cell": 0.4,
    }
    printed = capsys.readouterr().out
    assert "baseline (intensity histogram): test mIoU 0.500" in printed
    assert ("warning: the network's test mIoU, 0.100, is below" in " ".join(printed.split())) == (miou < 0.5)


def test_a_baseline_that_fails_does_not_fail_the_run(composed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unet.training.shared_data.baseline_scores", lambda data: 1 / 0)
    metrics = train(composed("trainer.max_steps=1"), tmp_path)
    assert "test/miou" in metrics and "baseline/miou" not in metrics
    assert "diagnostics: baseline skipped: ZeroDivisionError" in capsys.readouterr().out
