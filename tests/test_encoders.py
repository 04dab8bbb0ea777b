"""Encoders of timm: shapes, receptive fields, messages, pretrained weights, and runs with them."""

import json
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from conftest import ROOT, TINY, config
from folders import folder_of

from unet import UP, UNet, load
from unet.analysis.network_summary import summarize_network
from unet.analysis.receptive_field import receptive_fields
from unet.analysis.width_matching import match_width
from unet.errors import UserError
from unet.network.encoders import TimmEncoder, create_timm_model, split_encoder
from unet.network.normalization import Normalize
from unet.task.parameters import freeze_parts
from unet.training.config_limits import validate_config
from unet.training.pretrained_encoder import load_pretrained_encoder, weights_sha256
from unet.training.seeded_network import build_network
from unet.training.train import train

timm: Any = pytest.importorskip("timm", reason="needs timm: pip install -e '.[encoders]'")
pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")

NAMES = ("resnet18", "tf_efficientnet_lite0", "convnext_atto", "vgg11_bn", "mobilenetv3_small_050")
MEAN, STD = [100.0, 110.0, 120.0], [30.0, 40.0, 50.0]


@pytest.mark.parametrize("up", [name for name in UP if name not in ("bilinear", "trilinear")])
@pytest.mark.parametrize("name", NAMES)
def test_every_up_operator_works_with_every_encoder(name: str, up: str):
    if name == "convnext_atto" and up == "haar":  # its first stride is 4
        with pytest.raises(UserError, match=r"the Haar wavelet supports strides of 1 and 2, found \(4, 4\)"):
            UNet(encoder=name, up=up, width=8, depth=3)
        return
    with torch.device("meta"):
        net = UNet(encoder=name, up=up, width=8, depth=3, num_classes=4)
        assert net(torch.empty(2, 3, 97, 130)).shape == (2, 4, 97, 130)
    assert len(net.widths) == 4 and net.widths[0] == 8 and not len(net.downs)


@pytest.mark.parametrize("skip", ["concat", "add", "none", "attention"])
def test_the_image_reaches_encoder_and_stem(skip: str):
    net = UNet(encoder="mobilenetv3_small_050", width=4, depth=2, skip=skip, up="unpool")
    net(torch.randn(2, 3, 40, 48)).square().mean().backward()
    assert isinstance(net.encoder, TimmEncoder)
    for part in (net.encoder, net.stem):  # without skips, unpooling still reads where the skip has its maxima
        has_gradient = any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
        assert has_gradient or (skip == "none" and part is net.stem)


def test_receptive_fields_worked_by_hand():
    """ResNet-18: a convolution of 7 at stride 2 and a pooling of 3 at stride 2; then four convolutions of 3 a level."""
    fields = receptive_fields({"encoder": "resnet18", "depth": 4})
    assert [field[0] for field in fields.encoder] == [5, 7, 7 + 2 * 2 + 4 * 4 * 2, 43 + 8 + 3 * 16, 99 + 16 + 3 * 32]
    assert fields.encoder[1] == (7, 7) and not fields.downs
    squeezed = receptive_fields({"encoder": "mobilenetv3_small_050", "depth": 2})
    assert squeezed.encoder[1] == (3, 3) and squeezed.encoder[2] == (float("inf"),) * 2, (
        "squeeze and excitation sees the whole image"
    )


def test_the_summary_has_a_row_for_the_encoder():
    summary = summarize_network({"encoder": "resnet18", "width": 16, "depth": 2}, (64, 96))
    (row,) = (layer for layer in summary.layers if layer.name == "encoder")
    assert (row.operator, row.size, row.channels, row.stride) == ("resnet18", (16, 24), 64, (4, 4))
    assert row.formula == "64 / 4 = 16,  96 / 4 = 24" and row.flops > 0
    assert summary.parameters == sum(p.numel() for p in UNet(encoder="resnet18", width=16, depth=2).parameters())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"encoder": "resnet3"}, "has no model 'resnet3'; did you mean resnet"),
        ({"encoder": "vit_tiny_patch16_224"}, "no feature maps of images of any size .Input height"),
        ({"encoder": "resnet18", "depth": 6}, "model.depth=6: expected 1 to 5, the levels of model.encoder=resnet18"),
        ({"encoder": "resnet18", "depth": 0}, "expected 1 to 5"),
        ({"encoder": "resnet18", "down": "avg"}, "model.down=avg: model.encoder=resnet18 has its own downsampling"),
        ({"encoder": "resnet18", "stride": 3}, "model.stride=3: .* leave out one of them"),
        ({"encoder": "resnet18", "spatial_dims": 3}, "is for images of 2 axes, and these have 3"),
        ({"encoder": "resnet18", "width": [4] * 5}, "expected the channels at full resolution"),
        ({"encoder": None}, "expected none or the name of a timm model, found None"),
    ],
)
def test_a_wrong_setting_gets_a_message(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        UNet(**settings)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"pretrained": True}, "expected none, a name such as resnet34, or"),
        ({"name": "resnet18", "pretrain": True}, "expected none, a name"),
        ({"name": "resnet18", "pretrained": 1.5}, "expected true, false or a file's path, found 1.5"),
        ({"name": "none", "pretrained": True}, "expected the name of a timm model"),
        (3, "found 3"),
    ],
)
def test_a_wrong_value_of_the_config_gets_a_message(value: Any, message: str):
    with pytest.raises(UserError, match=message):
        split_encoder(value)


def test_timm_may_be_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, which is not installed; run: pip install .*\[encoders\]"):
        UNet(encoder="resnet18")


def test_widths_cannot_be_matched():
    with pytest.raises(UserError, match="has fixed channels"):
        match_width({"encoder": "resnet18", "width": 16, "depth": 3, "match": "parameters"}, (64, 64))


def test_initial_weights_do_not_depend_on_the_up_operator():
    first, second = (build_network({"encoder": "resnet18", "depth": 2, "up": up}, 3) for up in ("transposed", "carafe"))
    for name, tensor in first.encoder.state_dict().items():
        assert torch.equal(tensor, second.encoder.state_dict()[name]), name
    assert not torch.equal(
        build_network({"encoder": "resnet18", "depth": 2}, 4).stem[0][0].weight, first.stem[0][0].weight
    )


class Unsafe:
    """An object whose loading calls a function."""

    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Write weights of MobileNetV3 as timm saves them, with its classifier, and with statistics of batch norm."""
    torch.manual_seed(7)
    model = timm.create_model("mobilenetv3_small_050", num_classes=1000)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def pretrained_network(weights: Path, channels: int = 3, dtype: str = "uint8") -> tuple[UNet, list[str]]:
    net = UNet(channels, encoder="mobilenetv3_small_050", width=4, depth=3)
    setting = {"name": "mobilenetv3_small_050", "pretrained": str(weights)}
    description = {"dtype": dtype, "mean": MEAN[:1] * channels if channels != 3 else MEAN, "std": STD}
    return net.eval(), load_pretrained_encoder(net, setting, description)


def test_pretrained_features_are_those_of_timm_with_its_normalization(weights: Path):
    net, loaded = pretrained_network(weights)
    assert set(loaded) == {name for name in net.state_dict() if name.startswith("encoder.")}
    source = create_timm_model("mobilenetv3_small_050", 3, out_indices=(0, 1, 2)).eval()
    source.load_state_dict(torch.load(weights), strict=False)
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    own = torch.tensor([source.pretrained_cfg[key] for key in ("mean", "std")]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        expected = source((image / 255 - own[0]) / own[1])
        found = net.encode(Normalize(MEAN, STD, 2)(image))[1:]
    for maps, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(maps, reference, rtol=1e-3, atol=1e-4)


def test_other_images_keep_the_standardization_of_their_data(weights: Path):
    for channels, dtype in ((1, "uint8"), (3, "uint16"), (4, "uint8")):
        net, loaded = pretrained_network(weights, channels, dtype)
        assert loaded and isinstance(net.encoder, TimmEncoder)
        assert net.encoder.scale.eq(1).all() and net.encoder.shift.eq(0).all()


def test_weights_that_cannot_be_loaded_get_a_message(weights: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"pretrained=/no/file: no such file; expected weights of timm's mobilenetv3"):
        pretrained_network(Path("/no/file"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(
        UserError, match=r"weights in .*text.pth cannot be loaded .*; expected weights of timm's mobile"
    ):
        pretrained_network(tmp_path / "text.pth")
    torch.save({"a": Unsafe()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="weights_only=True blocked loading"):
        pretrained_network(tmp_path / "code.pth")
    other = UNet(encoder="resnet18", depth=2)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pretrained_encoder(other, {"name": "resnet18", "pretrained": str(weights)}, {"dtype": "uint8"})
    assert load_pretrained_encoder(other, "resnet18", {}) == [] and weights_sha256("resnet18") is None


def test_freezing_an_encoder_of_timm_leaves_the_stem():
    net = UNet(encoder="mobilenetv3_small_050", width=4, depth=2)
    freeze_parts(net, ["encoder"])
    assert not any(p.requires_grad for p in net.encoder.parameters()) and all(
        p.requires_grad for p in net.stem.parameters()
    )


def test_a_learning_rate_of_loaded_weights_needs_some():
    with pytest.raises(UserError, match="there are no loaded weights; add init=CHECKPOINT, or a pretrained"):
        validate_config(config("model.encoder=resnet18", "optim.init_lr_factor=0.1"))
    validate_config(config("model.encoder={name: resnet18, pretrained: true}", "optim.init_lr_factor=0.1"))


@pytest.mark.slow
def test_a_run_with_a_pretrained_encoder_resumes_predicts_and_exports(weights: Path, capsys: pytest.CaptureFixture):
    root = weights.parent
    data = folder_of(root / "data", [f"p{number}" for number in range(8)], (40, 36))
    encoder = f"model.encoder={{name: mobilenetv3_small_050, pretrained: {weights}}}"
    options = [*TINY, "data=folder", f"data.root={data}", "data.source.classes=[a,b]", "optim.schedule=constant"]
    options += [encoder, "optim.init_lr_factor=0.1", "optim.freeze=[encoder]"]
    train(config(*options, "trainer.max_epochs=1"), root / "run")
    assert "pretrained tensors of mobilenetv3_small_050" in capsys.readouterr().out
    last, best = root / "run/checkpoints/last.ckpt", root / "run/checkpoints/best.ckpt"
    weights.rename(root / "moved.pth")  # a checkpoint has the weights itself
    before = load(last).net.state_dict()
    train(config(*options, "trainer.max_epochs=2", f"ckpt_path={last}"), root / "run")
    assert len(json.loads((root / "run" / "metrics.json").read_text())["encoder_sha256"]) == 64
    after = load(last).net.state_dict()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("encoder.")} <= frozen < before.keys()
    for name in ("predict.py", "export.py"):
        arguments = [f"ckpt={best}", *(["input=data/images", "output=labels"] if name == "predict.py" else [])]
        result = processes.run([str(ROOT / "scripts" / name), *arguments], root)
        assert result.returncode == 0, result.stderr
    assert len(list((root / "labels").glob("*.png"))) == 8
