"""The network: widths, sizes, invalid settings, saving, compiling and exporting."""

import copy
import io
import itertools
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unet import CONTEXT, DOWN, UP, UNet
from unet.errors import UserError
from unet.network.blocks import ACTS, BLOCKS, NORMS, InstanceNorm, ResidualBlock
from unet.network.geometry import count_parameters
from unet.network.skips import SKIPS

SMALL = "the bottleneck is"
"""How the warning of a small bottleneck begins; the tests' networks are small on purpose."""
pytestmark = pytest.mark.filterwarnings(f"ignore:{SMALL}:UserWarning")


def small(**settings: Any) -> UNet:
    """A narrow network of depth 2, in evaluation mode."""
    return UNet(**({"width": 4, "depth": 2} | settings)).eval()


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


# Widths --------------------------------------------------------------------------------------------------------------


def test_the_default_network_has_the_parameters_of_the_original():
    model = UNet(in_channels=3, num_classes=2, width=64, depth=4, down="max", up="transposed")
    assert count_parameters(model) == count_parameters(UNet()) == 31_037_698
    assert model.widths == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize(
    ("key", "name", "prefix"),
    [
        *(("down", name, "downs.") for name in DOWN),
        *(("up", name, "ups.") for name in UP),
        *(("context", name, "context.") for name in CONTEXT),
    ],
)
def test_an_operator_changes_its_own_parameters_and_nothing_else(key: str, name: str, prefix: str):
    changed = set(shapes(small(**{key: name})).items()) ^ set(shapes(small()).items())
    assert all(parameter.startswith(prefix) for parameter, _ in changed)


@pytest.mark.parametrize(("skip", "in_channels"), [("concat", 8), ("add", 4), ("none", 4), ("attention", 8)])
def test_skip_changes_what_the_decoders_first_convolution_receives_and_nothing_else(skip: str, in_channels: int):
    first = "decoder.0.0.0.weight"
    assert shapes(small(skip=skip))[first] == (4, in_channels, 3, 3)
    without = shapes(small(skip="none"))
    changed = {name for name, shape in shapes(small(skip=skip)).items() if shape != without.get(name)}
    changed = {name for name in changed if not name.startswith("joins.")}
    assert changed <= {first, "decoder.1.0.0.weight"}


def test_the_attention_of_a_skip_is_a_weight_of_every_position():
    gate = SKIPS["attention"](4, 2, "batch").eval()
    skip, x = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    weighted, upsampled = gate(skip, x).split(4, 1)
    weights = weighted / skip
    assert torch.equal(upsampled, x) and weights.min() > 0 and weights.max() < 1
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))
    nn.init.zeros_(gate.get_parameter("weight.weight"))
    nn.init.zeros_(gate.get_parameter("weight.bias"))
    torch.testing.assert_close(gate(skip, x)[:, :4], skip / 2)
    assert SKIPS["attention"](1, 1, "group")(torch.randn(1, 1, 4), torch.randn(1, 1, 4)).shape == (1, 2, 4)


def test_a_residual_block_whose_convolutions_are_silent_is_its_shortcut():
    model = small(block="residual").eval()
    for module in (model.stem, model.encoder[0]):
        nn.init.zeros_(module.get_parameter("second.0.weight"))
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(model.stem(x), model.stem.get_submodule("shortcut")(x).relu())
    same = ResidualBlock(4, 4, 2, "none", "relu")
    assert not [name for name, _ in same.shortcut.named_parameters()], "equal channels need no convolution"
    plain, residual = (count_parameters(small(block=block)) for block in BLOCKS)
    shortcuts = sum(count_parameters(m) for name, m in model.named_modules() if name.endswith("shortcut"))
    assert residual == plain + shortcuts > plain


def test_a_list_of_widths_gives_every_level_its_own():
    model = small(width=[5, 7, 3])
    assert model.widths == [5, 7, 3]
    assert shapes(model)["encoder.0.0.0.weight"] == (7, 5, 3, 3)
    assert shapes(model)["encoder.1.0.0.weight"] == (3, 7, 3, 3)
    assert shapes(model)["head.weight"] == (2, 5, 1, 1)
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_skips_reach_the_logits_unless_they_are_none():
    """With the decoder's up operators silenced, only a skip can carry the image to the logits."""
    x = torch.randn(1, 3, 16, 16)
    for skip in SKIPS:
        model = small(skip=skip)
        for parameter in model.ups.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(model(x), model(-x)) == (skip == "none")


def test_depth_0_is_a_single_block():
    model = small(depth=0)
    assert not model.downs and not model.ups
    assert model(torch.randn(2, 3, 5, 7)).shape == (2, 2, 5, 7)


# Sizes ---------------------------------------------------------------------------------------------------------------

NETWORKS = {dims: small(spatial_dims=dims, width=2, context="spp", skip="add") for dims in (1, 2, 3)}


@settings(max_examples=60)
@given(data=st.data(), spatial_dims=st.sampled_from([1, 2, 3]), batch=st.integers(1, 2))
def test_any_size_of_at_least_the_total_stride_works_and_the_logits_have_it(data, spatial_dims: int, batch: int):
    size = data.draw(st.lists(st.integers(4, 21), min_size=spatial_dims, max_size=spatial_dims))
    logits = NETWORKS[spatial_dims](torch.randn(batch, 3, *size))
    assert logits.shape == (batch, 2, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (16, 16), (13, 22)])
@pytest.mark.parametrize("up", UP)
@pytest.mark.parametrize("down", DOWN)
def test_every_pair_supports_odd_sizes(down: str, up: str, size: tuple[int, int]):
    assert small(down=down, up=up)(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_padding_replicates_the_border_and_is_cropped():
    """Padding the image by hand, and cutting the logits by hand, gives the same."""
    model = small()
    image = torch.randn(1, 3, 13, 18)
    padded = nn.functional.pad(image, (1, 1, 1, 2), mode="replicate")  # 13 -> 16, 18 -> 20
    torch.testing.assert_close(model(image), model(padded)[..., 1:14, 1:19])


@pytest.mark.parametrize(
    ("settings", "too_small", "smallest"),
    [
        ({}, (3, 40), (4, 4)),
        ({}, (40, 3), (4, 4)),
        ({"depth": 4}, (15, 16), (16, 16)),
        ({"stride": 3}, (8, 9), (9, 9)),
        ({"stride": [[1, 2], [2, 3]]}, (2, 5), (2, 6)),
        ({"spatial_dims": 1}, (3,), (4,)),
        ({"spatial_dims": 3, "stride": [[1, 2, 2], [2, 2, 2]]}, (1, 4, 4), (2, 4, 4)),
    ],
)
def test_an_input_that_is_too_small_is_refused_with_the_minimum_size(settings: dict, too_small: tuple, smallest: tuple):
    model = small(**settings)
    minimum = " x ".join(map(str, smallest))
    with pytest.raises(UserError, match=f"is too small for depth .*the smallest that works is {minimum};"):
        model(torch.zeros(1, 3, *too_small))
    assert model(torch.zeros(1, 3, *smallest)).shape == (1, 2, *smallest)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32), (1, 3, 4, 32, 32)])
def test_an_input_of_another_shape_is_refused_with_the_expected_one(shape: tuple[int, ...]):
    with pytest.raises(UserError, match=r"takes \(B, 3, \*, \*\).*found \("):
        small()(torch.zeros(shape))


@pytest.mark.filterwarnings("error")
def test_a_small_bottleneck_gives_one_warning():
    model = small()
    with pytest.warns(UserWarning, match="the bottleneck is 8 x 7 for an input of 32 x 28: below 8"):
        model(torch.zeros(1, 3, 32, 28))
    model(torch.zeros(1, 3, 16, 16))  # a second warning would be an error
    small()(torch.zeros(1, 3, 29, 32))  # 8 x 8 once padded


def test_batch_norm_refuses_to_train_on_a_single_value():
    model = small().train()
    with pytest.raises(UserError, match=r"training with model\.norm=batch on 4 x 4 .*works is 5 x 5, or .*norm=group"):
        model(torch.zeros(1, 3, 4, 4))
    for shape in ((1, 3, 5, 5), (2, 3, 4, 4), (1, 3, 4, 5)):
        assert model(torch.randn(shape)).isfinite().all()
    assert model.eval()(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_is_that_of_torch(dims: int, training: bool):
    ours, torchs = InstanceNorm(4).train(training), getattr(nn, f"InstanceNorm{dims}d")(4, affine=True)
    nn.init.uniform_(ours.weight)
    nn.init.uniform_(ours.bias)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, *[6] * dims)
    results = []
    for norm in (ours, torchs):
        input = x.clone().requires_grad_()
        output = norm(input)
        output.square().sum().backward()
        results.append((output, input.grad, norm.weight.grad, norm.bias.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_refuses_a_single_value(training: bool):
    model = small(norm="instance").train(training)
    with pytest.raises(UserError, match=r"model\.norm=instance on 4 x 4 .*smallest that works is 5 x 5"):
        model(torch.zeros(2, 3, 4, 4))  # a larger batch does not help: each image is normalised alone
    assert model(torch.randn(1, 3, 5, 5)).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["group", "none"])
def test_the_other_norms_support_a_bottleneck_of_a_single_value(norm: str, training: bool):
    assert small(norm=norm).train(training)(torch.randn(1, 3, 4, 4)).isfinite().all()


# Choices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_norm_act_and_skip_trains(block: str, norm: str, act: str, skip: str):
    model = small(block=block, norm=norm, act=act, skip=skip, down="strided", context="spp", dropout=0.1).train()
    image = torch.randn(2, 3, 16, 16, requires_grad=True)
    logits = model(image)
    (logits * torch.randn_like(logits)).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.any()


def test_dropout_acts_in_training_only():
    model = small(dropout=0.5, norm="none")
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(image), model(image))
    model.train()
    assert not torch.equal(model(image), model(image))


def test_operators_may_be_listed_per_stage_fine_to_coarse():
    model = small(down=["max", {"name": "strided", "kernel_size": 4}], up=["nearest", "unpool"])
    kinds = [type(operator) for operator in [*model.downs, *model.ups]]
    assert kinds == [DOWN["max"], DOWN["strided"], UP["nearest"], UP["unpool"]]
    assert shapes(model)["downs.1.block.0.weight"] == (8, 8, 4, 4)
    assert model(torch.randn(1, 3, 17, 19)).shape == (1, 2, 17, 19)


@pytest.mark.parametrize("up", [name for name in UP if name not in ("bicubic", "haar")])
@pytest.mark.parametrize("down", [name for name in DOWN if name != "haar"])
def test_strides_may_differ_per_stage_and_axis(down: str, up: str):
    model = small(down=down, up=up, spatial_dims=3, stride=[[1, 2, 2], 3])
    assert model.total_stride == (3, 6, 6)
    assert model(torch.randn(1, 3, 4, 13, 12)).shape == (1, 2, 4, 13, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"down": "stridded"}, r"model\.down: unknown operator 'stridded'; did you mean strided\?"),
        ({"up": "biliner"}, r"model\.up: unknown operator 'biliner'; did you mean bilinear\?"),
        ({"context": "ssp"}, r"model\.context: unknown operator 'ssp'; did you mean spp\?"),
        ({"down": ["max", "agv"]}, r"model\.down: unknown operator 'agv'; did you mean avg\?"),
        ({"down": {"name": "max", "kernel": 3}}, r"model\.down=max: no option 'kernel'; did you mean kernel_size\?"),
        ({"up": {"name": "unpool", "size": 3}}, r"model\.up=unpool: no option 'size'.*\(valid: none\)"),
        ({"context": {"name": "spp", "bin": [1]}}, r"model\.context=spp: no option 'bin'; did you mean bins\?"),
        ({"skip": "concatenate"}, r"model\.skip: unknown 'concatenate'; did you mean concat\?"),
        ({"norm": "bach"}, r"model\.norm: unknown 'bach'; did you mean batch\?"),
        ({"norm": ["batch"]}, r"model\.norm: unknown \['batch'\]"),
        ({"act": "rleu"}, r"model\.act: unknown 'rleu'; did you mean relu\?"),
        ({"down": None}, r"model\.down: expected a name or"),
        ({"down": ["max"]}, r"model\.down: expected one value or 2 \(one per stage, fine to coarse\), found 1"),
        ({"up": ["nearest"] * 3}, r"model\.up: expected one value or 2 .*, found 3"),
        ({"stride": [2, 2, 2]}, r"model\.stride: expected one value or 2 .*, found 3"),
        ({"stride": [[2, 2, 2], 2]}, r"model\.stride: a stage has 2 axes, found \[2, 2, 2\]"),
        ({"stride": 0}, r"model\.stride: expected an integer of at least 1, found 0"),
        ({"stride": 1.5}, r"model\.stride: expected an integer of at least 1, found 1\.5"),
        ({"width": [4, 8]}, r"model\.width: expected a number or 3 numbers \(depth 2 has 3 levels\), found \[4, 8\]"),
        ({"width": "64"}, r"model\.width: expected a number or 3 numbers .*found '64'"),
        ({"width": 0}, r"model\.width: expected an integer of at least 1, found 0"),
        ({"width": [4, 8, 0]}, r"model\.width: expected an integer of at least 1, found 0"),
        ({"depth": -1}, r"model\.depth: expected an integer of at least 0, found -1"),
        ({"depth": True}, r"model\.depth: expected an integer of at least 0, found True"),
        ({"in_channels": 0}, r"model\.in_channels: expected an integer of at least 1, found 0"),
        ({"num_classes": 0}, r"model\.num_classes: expected an integer of at least 1, found 0"),
        ({"spatial_dims": 4}, r"model\.spatial_dims: expected 1, 2 or 3, found 4"),
        ({"spatial_dims": True}, r"model\.spatial_dims: expected 1, 2 or 3, found True"),
        ({"dropout": 1.5}, r"model\.dropout: expected a probability"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_invalid_setting_is_refused(settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        small(**settings)


CHANNELS_ARE_POSITIONS = {"carafe", "dysample", "haar"}
"""Up operators whose channels stand for places, which mirroring a kernel leaves alone: see tests/test_operators.py."""

# Alignment -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [name for name in UP if name not in CHANNELS_ARE_POSITIONS])
@pytest.mark.parametrize("down", ["max", "avg", "blur", {"name": "strided", "kernel_size": 4}], ids=str)
def test_with_mirror_symmetric_weights_a_mirrored_image_gives_mirrored_logits(down, up: str):
    """Padding, operators, skips and crop move nothing to one side.

    The image's size leaves an even amount to pad; silu, unlike relu, leaves no ties, of which unpool takes the first.
    """
    model = small(down=down, up=up, act="silu")
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = (parameter.data + parameter.data.flip(2, 3)) / 2
    image = torch.randn(1, 3, 18, 22)
    torch.testing.assert_close(model(image.flip(2, 3)), model(image).flip(2, 3), atol=1e-5, rtol=1e-4)


# Saving, compiling, exporting ----------------------------------------------------------------------------------------

# Networks that hold every operator once, for what takes seconds.
EVERY_OPERATOR = [
    *(
        pytest.param({"depth": 1, "down": down, "up": up}, id=f"{down}-{up}")
        for down, up in itertools.islice(zip(itertools.cycle(DOWN), itertools.cycle(UP)), max(len(DOWN), len(UP)))
    ),
    *(
        pytest.param({"depth": 1, "context": context}, id=f"context-{context}")
        for context in CONTEXT
        if context != "none"
    ),
    pytest.param({"down": "strided", "up": "linear", "stride": [[1, 2], 3]}, id="stride-1x2-3x3"),
    pytest.param({"down": "blur", "up": "nearest", "stride": [[1, 2], 3]}, id="stride-1x2-3x3-blur"),
]
ODD_SIZES = [(1, 37, 41), (3, 19, 64), (2, 53, 23)]
"""(B, H, W) unlike the traced input's: odd, of other batch sizes, one axis in need of no padding."""


def traced_input() -> Tensor:
    return torch.randn(2, 3, 48, 32)


@pytest.mark.parametrize("settings", EVERY_OPERATOR)
def test_a_saved_network_gives_the_same_logits_once_loaded(settings: dict, tmp_path: Path):
    model, other = small(**settings), small(**settings)
    image = traced_input()
    for _ in range(2):
        model.train()(image)  # so that the running statistics are not the initial ones
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(image), model.eval()(image))


@pytest.mark.parametrize(
    "settings",
    [
        {key: name}
        for key, table in {"down": DOWN, "up": UP, "context": CONTEXT, "skip": SKIPS, "block": BLOCKS}.items()
        for name in table
    ],
    ids=str,
)
def test_a_network_can_be_pickled_saved_whole_and_copied(settings: dict[str, str]):
    model, image, file = small(**settings), torch.randn(1, 3, 16, 16), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for copied in (pickle.loads(pickle.dumps(model)), loaded, copy.deepcopy(model)):
        assert torch.equal(copied(image), model(image))


@pytest.mark.slow
def test_a_network_can_be_sent_to_a_spawned_process():
    models = [small(skip=skip, down="mixed", up="unpool", context="aspp") for skip in SKIPS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(count_parameters, models) == [count_parameters(model) for model in models]


@pytest.mark.slow
@pytest.mark.parametrize("settings", EVERY_OPERATOR)
def test_the_network_compiles_without_a_graph_break(settings: dict):
    model = small(**settings)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((2, 3, 32, 32), (1, 3, 29, 35)):
        image = torch.randn(size)
        torch.testing.assert_close(compiled(image), model(image))


@pytest.mark.slow
@pytest.mark.parametrize("settings", EVERY_OPERATOR)
def test_an_exported_program_is_right_at_other_sizes(settings: dict):
    auto = torch.export.Dim.AUTO
    model = small(**settings)
    program = torch.export.export(model, (traced_input(),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)).module()
    for batch, *size in ODD_SIZES:
        image = torch.randn(batch, 3, *size)
        torch.testing.assert_close(program(image), model(image))


def test_a_program_exported_from_an_odd_size_supports_other_sizes():
    auto = torch.export.Dim.AUTO
    model = small()
    program = torch.export.export(
        model, (torch.randn(2, 3, 33, 45),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
    ).module()
    for size in ((32, 48), (41, 64), (64, 41), (19, 21), (5, 6)):
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(program(image), model(image))
