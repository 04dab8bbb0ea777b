"""Losses: values computed by hand, ignored pixels, gradients."""

import math

import pytest
import torch

from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.class_weights import class_weights, log_weights
from unet.task.losses import LOSSES, make_loss, soft_skeleton

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
    assert (logits.grad[:, :, 1:].abs().sum(1) > 0).float().mean() > (0.1 if name == "cldice" else 0.99)
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
        ({"name": "focal", "gamma": 0}, math.log(2)),
        ({"name": "cross_entropy", "label_smoothing": 0.5}, math.log(2)),
        # One half of the overlap, of the false positives and of the false negatives; smoothed by 0.5: 1 / 1.5.
        ({"name": "tversky", "alpha": 0.3, "beta": 0.7}, 1 / 3),
        ({"name": "tversky", "alpha": 1, "beta": 1}, 1 / 2),
        ({"name": "tversky", "gamma": 2}, 1 / 9),
        # Both errors are one half, and the steps of the IoU loss add up to 1.
        ("lovasz", 1 / 2),
        # The skeleton of a constant is empty: precision 1 by the smoothing; recall (1/2 + 1) / (1 + 1).
        ("cldice", 1 / 7),
        (["cross_entropy", {"name": "focal", "gamma": 2}], 1.25 * math.log(2)),
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


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_right_and_wrong_predictions_in_every_dimension(name, axes):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, *[6] * axes), generator=generator)
    right = 30 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    wrong = right.roll(1, 1)
    loss = make_loss(name, None)
    assert loss(right, target).item() == pytest.approx(0, abs=1e-3)
    assert loss(wrong, target) > loss(torch.zeros_like(right), target) > loss(0.1 * right, target) > 0


def test_the_lovasz_loss_of_hard_predictions_is_one_minus_the_iou():
    generator = torch.Generator().manual_seed(1)
    target, pred = (torch.randint(0, 3, (2, 8, 9), generator=generator) for _ in range(2))
    logits = 100 * torch.nn.functional.one_hot(pred, 3).movedim(-1, 1).float()
    ious = [((target == k) & (pred == k)).sum() / ((target == k) | (pred == k)).sum() for k in range(3)]
    assert make_loss("lovasz", None)(logits, target).item() == pytest.approx(1 - sum(ious).item() / 3)
    weighted = 1 - (ious[0] + 2 * ious[1]).item() / 3
    assert make_loss("lovasz", [1, 2, 0])(logits, target).item() == pytest.approx(weighted)


def test_the_skeleton_of_a_bar_is_its_middle_and_a_gap_costs_more_in_cldice():
    bar = torch.zeros(1, 1, 9, 20)
    bar[..., 3:6, 2:18] = 1
    skeleton = soft_skeleton(bar, 5)
    assert (skeleton[..., 4, 3:17] == 1).all() and skeleton.sum() <= 16
    target = bar[:, 0].long()
    gap, rim = bar.clone(), bar.clone()
    gap[..., 3:6, 9:11] = 0
    rim[..., 3, 3:9] = 0  # as many pixels of its side
    losses = {
        name: [make_loss(name, [0, 1])(60 * torch.cat([0.5 - x, x - 0.5], 1), target).item() for x in (gap, rim)]
        for name in ("dice", "cldice")
    }
    assert losses["dice"][0] == pytest.approx(losses["dice"][1]) and losses["cldice"][0] > 2 * losses["cldice"][1]


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 4, 32, 24)])
def test_losses_agree_with_segmentation_models_pytorch(shape):
    losses = pytest.importorskip("segmentation_models_pytorch.losses", reason="needs pip install -e '.[bench]'")
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    target[:, :2] = IGNORE_INDEX
    peers = {
        "lovasz": losses.LovaszLoss("multiclass", ignore_index=IGNORE_INDEX),
        "dice": losses.DiceLoss("multiclass", smooth=0.5, ignore_index=IGNORE_INDEX),
    }
    options = {"alpha": 0.2, "beta": 0.9}
    peers["tversky"] = losses.TverskyLoss("multiclass", smooth=0.5, ignore_index=IGNORE_INDEX, **options)
    for name, peer in peers.items():
        spec = {"name": name, **options} if name == "tversky" else name
        assert make_loss(spec, None)(logits, target).item() == pytest.approx(peer(logits, target).item(), rel=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_cldice_agrees_with_monai(axes):
    losses = pytest.importorskip("monai.losses", reason="needs pip install -e '.[bench]'")
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 2, *[16] * axes, generator=generator)
    target = torch.randint(0, 2, (1, *[16] * axes), generator=generator)
    expected = losses.SoftclDiceLoss(iter_=3)(logits.softmax(1)[:, 1:], target.unsqueeze(1).float()).item()
    spec = {"name": "cldice", "iterations": 3}
    assert make_loss(spec, [0, 1])(logits, target).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("dise", r"unknown 'dise'; did you mean dice\? \(valid: cross_entropy, "),
        ([], r"unknown \[\]"),
        (["dice", 3], "unknown 3"),
        ({"gamma": 2}, "unknown None"),
        ({"name": "focal", "gama": 2}, r"loss.name=focal: no option 'gama'; did you mean gamma\? \(valid: gamma\)"),
        ({"name": "dice", "gamma": 2}, r"loss.name=dice: no option 'gamma' \(valid: none\)"),
        ({"name": "focal", "gamma": "high"}, "gamma: expected a number of 0 to 100, found 'high'"),
        ({"name": "tversky", "alpha": -1}, "alpha: expected a number of 0 to 100, found -1"),
        ({"name": "cross_entropy", "label_smoothing": 1.5}, "label_smoothing: expected a number of 0 to 1, found 1.5"),
        ({"name": "cldice", "iterations": 2.5}, "iterations: expected an integer of 0 to 100, found 2.5"),
    ],
)
def test_an_invalid_loss_gets_a_message(spec, message):
    with pytest.raises(UserError, match=message):
        make_loss(spec, None)
