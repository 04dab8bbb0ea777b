"""Deep supervision: heads at the coarser levels in training, and the loss of all levels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unet import UNet, load
from unet.analysis.network_summary import summarize_network
from unet.errors import UserError
from unet.labels import IGNORE_INDEX
from unet.task.losses import coarse_labels, deep_loss
from unet.training.seeded_network import build_network
from unet.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")


@pytest.mark.parametrize("size, stride", [((64,), 2), ((64, 80), 2), ((16, 16, 16), [[1, 2, 2], 2, 2])])
def test_training_has_the_logits_of_all_levels_but_the_coarsest_and_evaluation_the_finest_alone(size, stride):
    net = UNet(1, 3, width=4, depth=3, stride=stride, spatial_dims=len(size), deep_supervision=True)
    image = torch.randn(2, 1, *size)
    fine, coarse = net(image)
    assert fine.shape == (2, 3, *size) and coarse.shape[2:] == tuple(
        n // r for n, r in zip(size, net.strides[0], strict=True)
    )
    assert net.eval()(image).shape == fine.shape
    plain = UNet(1, 3, width=4, depth=3, stride=stride, spatial_dims=len(size))
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("coarse_heads")})
    assert torch.equal(plain.eval()(image), net(image))


def test_coarse_labels_are_those_at_the_centers_of_the_cells():
    row = torch.arange(8).view(1, 8)
    assert coarse_labels(row, (4,), (2,)).tolist() == [[1, 3, 5, 7]]
    assert coarse_labels(row, (2,), (4,)).tolist() == [[2, 6]]
    padded = coarse_labels(torch.arange(5).view(1, 5), (2,), (4,))  # 5 samples: padded by 1 before and 2 after
    assert padded.tolist() == [[1, IGNORE_INDEX]]
    image = torch.arange(16).view(1, 4, 4)
    assert coarse_labels(image, (2, 2), (2, 2)).tolist() == [[[5, 7], [13, 15]]]
    assert coarse_labels(image, (4, 2), (1, 2)).tolist() == [[[1, 3], [5, 7], [9, 11], [13, 15]]]


def test_the_loss_is_the_weighted_mean_over_the_levels():
    def loss(logits, target):
        return F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX)

    target = torch.randint(0, 3, (2, 8, 8))
    levels = [torch.randn(2, 3, 8 // r, 8 // r) for r in (1, 2, 4)]
    parts = [loss(x, coarse_labels(target, x.shape[2:], (r, r))) for x, r in zip(levels, (1, 2, 4), strict=True)]
    expected = (parts[0] + parts[1] / 2 + parts[2] / 4) / 1.75
    torch.testing.assert_close(deep_loss(loss, levels, target, [(2, 2), (2, 2), (2, 2)]), expected)
    assert deep_loss(loss, levels[:1], target, []) == parts[0]


def test_two_levels_are_too_few():
    with pytest.raises(UserError, match=r"model.deep_supervision needs a model.depth of at least 3, found 2"):
        UNet(depth=2, deep_supervision=True)


def test_the_summary_has_the_heads():
    summary = summarize_network({"width": 4, "depth": 4, "deep_supervision": True}, (64, 64))
    heads = [layer for layer in summary.layers if layer.name.startswith("coarse_heads")]
    assert [head.size for head in heads] == [(16, 16), (32, 32)], "from coarse to fine, as they are run"
    assert {(head.channels, head.operator) for head in heads} == {(2, "head")}
    assert summary.parameters == sum(p.numel() for p in UNet(width=4, depth=4, deep_supervision=True).parameters())


def test_a_run_trains_its_heads_and_its_checkpoint_predicts(composed, tmp_path):
    metrics = train(composed("model.depth=3", "model.deep_supervision=true", "seed=3"), tmp_path)
    assert 0 < metrics["test/miou"] <= 1
    trained = load(tmp_path / "checkpoints" / "last.ckpt")
    first = build_network(trained.description["model"], 3).state_dict()
    moved = {name: not torch.equal(value, first[name]) for name, value in trained.net.state_dict().items()}
    assert moved["coarse_heads.0.weight"] and moved["head.weight"] and moved["stem.0.0.weight"]
    image = np.random.default_rng(0).integers(48, 240, (40, 50), np.uint8)
    assert trained.predict(image).shape == (40, 50)
