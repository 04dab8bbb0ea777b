"""Metrics: values computed by hand, absent classes, ignored labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet.labels import IGNORE_INDEX
from unet.task.metrics import ConfusionMatrix

NAMES = ("sea", "land", "lake")


def matrix(pred: list[int], target: list[int], num_classes: int = 3) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(torch.tensor(pred), torch.tensor(target))
    return confusion


def test_scores_of_ten_pixels_by_hand():
    # sea: 4 correct, 1 predicted as land; land: 2 correct, 1 predicted as sea; lake: 1 correct, 1 predicted as land.
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


def test_an_absent_class_is_left_out_of_the_means():
    confusion = matrix([0, 0, 1, 1], [0, 0, 1, 0])
    scores = confusion.scores(NAMES)
    assert confusion.absent_classes(NAMES) == ["lake"]
    assert "iou/lake" not in scores
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_predicted_but_never_true_counts_as_zero():
    confusion = matrix([0, 2], [0, 0])
    assert confusion.scores(NAMES)["iou/lake"] == 0
    assert confusion.absent_classes(NAMES) == ["land"]


def test_ignored_pixels_are_not_counted():
    confusion = matrix([0, 1, 1], [0, IGNORE_INDEX, 1])
    assert confusion.counts.sum() == 2
    assert confusion.scores(NAMES)["accuracy"] == 1


def test_the_metrics_are_nan_without_labelled_pixels():
    assert math.isnan(matrix([0], [IGNORE_INDEX]).scores(NAMES)["miou"])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, IGNORE_INDEX])), min_size=1, max_size=60),
    st.integers(1, 59),
)
def test_the_matrix_of_a_split_does_not_depend_on_how_it_is_batched(pixels, cut):
    pred, target = ([pair[side] for pair in pixels] for side in (0, 1))
    at_once = matrix(pred, target)
    in_batches = ConfusionMatrix(3)
    for piece in (slice(None, cut), slice(cut, None)):
        in_batches.update(torch.tensor(pred[piece], dtype=torch.long), torch.tensor(target[piece], dtype=torch.long))
    assert torch.equal(at_once.counts, in_batches.counts)


def test_class_frequencies_of_targets_and_predictions():
    true, predicted = matrix([0, 0, 0, 1], [0, 1, 1, 1]).class_frequencies()
    assert true == [0.25, 0.75, 0]
    assert predicted == [0.75, 0.25, 0]
