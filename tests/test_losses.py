"""Losses: values computed by hand, ignored pixels, gradients."""

import math

import pytest
import torch

from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.losses import LOSSES, class_weights, log_weights, make_loss

HALF = torch.zeros(1, 2, 1, 2)  # two pixels, two classes of probability 1/2
TARGET = torch.tensor([[[0, 1]]])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_ignored_pixels_change_neither_loss_nor_gradient(name, weights):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 5))
    target[:, 0] = IGNORE_INDEX
    loss = make_loss(name, weights)
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[:, :, 0].abs().max() == 0
    assert (logits.grad[:, :, 1:].abs().sum(1) > 0).all()
    disturbed = logits.detach().clone()
    disturbed[:, :, 0] += 100
    assert torch.allclose(loss(disturbed, target), value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_labels_has_loss_0_and_a_finite_gradient(name):
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = make_loss(name, None)(logits, torch.full((1, 3, 3), IGNORE_INDEX))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cross_entropy", math.log(2)),
        # Each class: overlap 1/2, sizes 1 (probabilities) + 1 (truth); with the smoothing 1: (2/2 + 1) / (2 + 1) = 2/3.
        ("dice", 1 / 3),
        ("cross_entropy_dice", math.log(2) + 1 / 3),
        ("focal", 0.25 * math.log(2)),
    ],
)
def test_losses_of_one_half_by_hand_in_float32(name, expected):
    loss = make_loss(name, None)(HALF.bfloat16(), TARGET)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected)


def test_class_weights_average_the_cross_entropy():
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])
    first, second = math.log(2), math.log(1 + math.exp(2))  # class 0 at one half; class 1 two below class 0
    weighted = make_loss("cross_entropy", [1.0, 3.0])(logits, TARGET).item()
    assert weighted == pytest.approx((first + 3 * second) / 4)


def test_class_weights_by_hand():
    counts = [100, 25, 0, 400]
    assert class_weights("none", counts) is None
    assert class_weights("median_frequency", counts) == [1.0, 4.0, 1.0, 0.25]
    assert class_weights("sqrt_median_frequency", counts) == [1.0, 2.0, 1.0, 0.5]
    assert class_weights([1, 2, 3, 4], counts) == [1, 2, 3, 4]


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1, 1, 1, -1]])
def test_invalid_class_weights_are_refused(weights):
    with pytest.raises(UserError, match=r"loss\.class_weights"):
        class_weights(weights, [1, 1, 1, 1])


def test_log_weights_by_hand():
    assert log_weights(None) is None
    assert log_weights([1, math.e, 0]) == pytest.approx([0, 1, 0])
