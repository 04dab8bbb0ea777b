"""Metrics: values computed by hand, absent classes, ignored labels."""

import math

import pytest
import torch

from unet.labels import IGNORE_INDEX
from unet.task.metrics import ConfusionMatrix, count_by_image

NAMES = ("sea", "land", "lake")


def matrix(pred: list[int], target: list[int], num_classes: int = 3) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(torch.tensor(pred), torch.tensor(target))
    return confusion


def test_scores_of_ten_pixels_by_hand():
    confusion = matrix([0, 0, 0, 0, 1, 1, 1, 0, 2, 1], [0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    assert confusion.counts.tolist() == [[4, 1, 0], [1, 2, 0], [0, 1, 1]]
    scores = confusion.scores(NAMES)
    assert scores["iou/sea"] == pytest.approx(4 / 6)
    assert scores["iou/land"] == pytest.approx(2 / 5)
    assert scores["iou/lake"] == pytest.approx(1 / 2)
    assert scores["miou"] == pytest.approx((4 / 6 + 2 / 5 + 1 / 2) / 3)
    assert scores["dice/sea"] == pytest.approx(8 / 10)
    assert scores["dice"] == pytest.approx((8 / 10 + 4 / 7 + 2 / 3) / 3)
    assert scores["accuracy"] == pytest.approx(7 / 10)
    assert scores["class_accuracy"] == pytest.approx((4 / 5 + 2 / 3 + 1 / 2) / 3)


def test_the_pixels_of_every_image_are_counted_by_themselves():
    pred, target = (
        torch.tensor([[[0, 1, 1, 0]], [[0, 1, 1, 1]]]),
        torch.tensor([[[0, 0, 1, IGNORE_INDEX]], [[1, 1, IGNORE_INDEX, IGNORE_INDEX]]]),
    )
    assert count_by_image(pred, target, 2).tolist() == [[[1, 1], [0, 1]], [[0, 0], [1, 1]]]


def test_an_absent_class_and_ignored_pixels_are_left_out():
    confusion = matrix([0, 0, 1, 1, 2], [0, 0, 1, 0, IGNORE_INDEX])
    scores = confusion.scores(NAMES)
    assert confusion.absent_classes(NAMES) == ["lake"]
    assert "iou/lake" not in scores
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_predicted_but_never_true_counts_as_zero():
    confusion = matrix([0, 2], [0, 0])
    assert confusion.scores(NAMES)["iou/lake"] == 0
    assert confusion.absent_classes(NAMES) == ["land"]


def test_the_metrics_are_nan_without_labelled_pixels():
    assert math.isnan(matrix([0], [IGNORE_INDEX]).scores(NAMES)["miou"])


def test_class_frequencies_of_targets_and_predictions():
    true, predicted = matrix([0, 0, 0, 1], [0, 1, 1, 1]).class_frequencies()
    assert true == [0.25, 0.75, 0]
    assert predicted == [0.75, 0.25, 0]
