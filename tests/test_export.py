"""A bundle has the outputs of the trained network without the project, and is refused if anything differs."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from conftest import ROOT
from folders import noise, save, sentence
from PIL import Image
from torch import nn

from unet.data.samples import Samples
from unet.data.source import Item, in_memory_pair
from unet.errors import UserError
from unet.export import bundle, formats
from unet.export.bundle import ExportOptions, export
from unet.export.check import compare_labels, odd_sizes, parity, side_by_side, tiling_error
from unet.export.deployed import Deployed, InputSpec, input_spec
from unet.export.formats import FORMATS
from unet.export.tiles import TileSpec, tile_spec
from unet.inference.checkpoint import load
from unet.inference.segmenter import Segmenter
from unet.network.registry import CONTEXT

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore:the bottleneck is:UserWarning")  # small on purpose

DESCRIPTION = {
    "model": {"in_channels": 3, "num_classes": 3, "width": 4, "depth": 1, "spatial_dims": 2},
    "classes": ["sky", "sea", "land"],
    "colors": [[10, 20, 30], [0, 0, 255], [0, 255, 0]],
    "mean": [120.0, 110.0, 100.0],
    "std": [60.0, 50.0, 40.0],
    "dtype": "uint8",
    "range": [0.0, 255.0],
    "log_weights": [0.0, 0.1, -0.1],
    "eval_tile": [22, 29],
    "eval_overlap": 0.3,
    "eval_transforms": [{"_target_": "albumentations.LongestMaxSize", "max_size": 256}],
}


def saved(folder: Path, description: dict[str, Any] = DESCRIPTION, **model: Any) -> Path:
    """A run's folder with a checkpoint of a random network and a score."""
    torch.manual_seed(0)
    description = {**description, "model": {**description["model"], **model}}
    path = folder / "up=max" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    (path.parent.parent / "metrics.json").write_text('{"test/miou": 0.75}')
    net = Segmenter(description)
    net.net.head.weight.data *= 20
    takes = input_spec(net)
    logits = net.eval()(takes.random_image(1, (32,) * len(takes.total_stride))).detach()
    net.net.head.bias.data -= (
        logits.transpose(0, 1).flatten(1).mean(1)
    )  # so that every class is somewhere the likeliest
    torch.save({"description": description, "state_dict": net.state_dict()}, path)
    return path


def by_hand(path: Path, image: np.ndarray) -> np.ndarray:
    """Probabilities (B, K, H, W) of stored pixels (B, C, H, W): normalised, the network, less log weights, softmax."""
    column = [np.array(DESCRIPTION[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std", "log_weights")]
    with torch.no_grad():
        logits = load(path).net(torch.from_numpy((image.astype(np.float32) - column[0]) / column[1])).numpy()
    exponent = np.exp(logits - column[2])
    return exponent / exponent.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of :func:`saved` and, in the run's folder, its bundle."""
    path = saved(tmp_path_factory.mktemp("run"))
    folder, _ = export(path, None, ExportOptions())
    assert folder == path.parent.parent / "export_onnx"
    return path


def test_the_model_takes_stored_pixels_and_gives_probabilities(made: Path):
    program = FORMATS["onnx"].open(made.parent.parent / "export_onnx" / "model.onnx")
    for batch, *size in ((1, 7, 9), (3, 13, 2)):
        image = noise(batch, 3, *size)
        np.testing.assert_allclose(program(torch.from_numpy(image)), by_hand(made, image), atol=1e-5)


def test_a_bundle_tells_what_it_takes_gives_and_comes_from(made: Path):
    folder = made.parent.parent / "export_onnx"
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.onnx", "run.py"]
    content = json.loads((folder / "bundle.json").read_text())
    assert content["model"]["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert content["checkpoint"] == {"file": "best.ckpt", "sha256": hashlib.sha256(made.read_bytes()).hexdigest()}
    assert content["classes"] == DESCRIPTION["classes"] and content["colors"] == DESCRIPTION["colors"]
    takes = content["input"]
    assert (takes["layout"], takes["dtype"], takes["channels"], takes["range"]) == ("B C H W", "uint8", 3, [0, 255])
    assert takes["smallest"] == takes["total_stride"] == [2, 2]
    assert takes["eval_transforms"] == DESCRIPTION["eval_transforms"], "what the model leaves to its user"
    assert content["output"] == {"name": "probabilities", "layout": "B K H W", "dtype": "float32"}
    assert (content["tiles"]["tile"], content["tiles"]["overlap"]) == ([22, 30], [7, 9])
    assert content["metrics"] == {"test/miou": 0.75}
    assert (
        content["checked_against_torch"]["largest_difference"] <= 1e-4
        and 0 <= content["tiling_error"]["label_agreement"] <= 1
    )
    assert {"torch", "onnxruntime", "python", "commit"} <= content["versions"].keys()
    assert str(made.parent.parent.parent) not in (folder / "bundle.json").read_text(), "no path of this machine"


def run_alone(folder: Path, forbidden: list[str], *arguments: Path) -> subprocess.CompletedProcess:
    """The bundle's example in a process of its own, where ``forbidden`` packages cannot be imported."""
    source = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({forbidden!r}))\n"
        f"sys.argv = {['run.py', *map(str, arguments)]!r}\n"
        "runpy.run_path('run.py', run_name='__main__')\n"
        f"assert not [name for name in sys.modules if name.partition('.')[0] in {forbidden!r} and sys.modules[name]]"
    )
    return subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_example_needs_neither_torch_nor_this_project(made: Path, tmp_path: Path):
    folder = shutil.copytree(made.parent.parent / "export_onnx", tmp_path / "elsewhere")
    picture = noise(11, 13, 3)
    save(tmp_path / "in.png", picture)
    done = run_alone(folder, ["torch", "unet", "lightning", "onnx"], tmp_path / "in.png", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.png") as image:
        expected = by_hand(made, picture.transpose(2, 0, 1)[None]).argmax(1)[0]
        assert (np.asarray(image) == expected).all() and len(np.unique(expected)) > 1
        assert np.array(image.getpalette())[:9].tolist() == np.ravel(DESCRIPTION["colors"]).tolist()
    np.save(tmp_path / "in.npy", picture)
    assert run_alone(folder, ["torch", "unet"], tmp_path / "in.npy", tmp_path / "out.npy").returncode == 0
    assert (np.load(tmp_path / "out.npy") == expected).all()


def test_the_code_of_the_page_runs(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    source = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(made.parent.parent)
    picture = noise(12, 10, 3)
    save(Path("street.png"), picture)
    exec(source, {})
    expected = by_hand(made, picture.transpose(2, 0, 1)[None]).argmax(1)
    assert eval(capsys.readouterr().out) == {
        name: float((expected == label).mean()) for label, name in enumerate(DESCRIPTION["classes"])
    }


def test_labels_of_a_torch_program_and_its_example(tmp_path: Path):
    path = saved(tmp_path)
    folder, content = export(path, tmp_path / "bundle", ExportOptions("pt2", labels=True))
    image = noise(2, 3, 9, 15)
    output = FORMATS["pt2"].open(folder / "model.pt2")(torch.from_numpy(image))
    assert output.dtype == torch.uint8 and (output.numpy() == by_hand(path, image).argmax(1)).all()
    assert content["output"] == {"name": "labels", "layout": "B H W", "dtype": "uint8"}
    assert content["input"]["smallest"] == [3, 3], "torch.export leaves out a bottleneck of one sample"
    assert content["checked_against_torch"]["largest_difference"] is None
    save(tmp_path / "in.png", image[0].transpose(1, 2, 0))
    done = run_alone(folder, ["unet", "lightning", "onnxruntime"], tmp_path / "in.png", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    assert (np.asarray(Image.open(tmp_path / "out.png")) == output[0].numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype, dims, norm", [("uint16", 1, "instance"), ("float32", 3, "batch")])
def test_lines_volumes_and_other_types(dtype: str, dims: int, norm: str, tmp_path: Path):
    one = {"mean": [300.0], "std": [200.0], "dtype": dtype, "range": [-2000.0, 2000.0], "eval_tile": None}
    path = saved(tmp_path, {**DESCRIPTION, **one}, in_channels=1, spatial_dims=dims, norm=norm)
    folder, content = export(path, tmp_path / "bundle", ExportOptions("onnx", labels=dims == 3))
    program, net = FORMATS["onnx"].open(folder / "model.onnx"), Deployed(load(path))
    image = torch.from_numpy(noise(2, 1, *(5, 7, 9)[:dims], below=1000).astype(dtype))
    output, expected = program(image), net(image).detach()
    torch.testing.assert_close(output.long() if dims == 3 else output, expected.argmax(1) if dims == 3 else expected)
    assert content["input"]["range"] == ([0, 65535] if dtype == "uint16" else [-2000, 2000])
    # Instance norm cannot normalise a single value.
    assert content["input"]["smallest"] == ([3] if norm == "instance" else [2] * dims)


# What is checked -----------------------------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def swapped(monkeypatch: pytest.MonkeyPatch, opened: Any) -> None:
    """The ONNX format with another way to open a file."""
    form = FORMATS["onnx"]
    monkeypatch.setitem(bundle.FORMATS, "onnx", dataclasses.replace(form, open=opened))


def shifted(path: Path) -> formats.Program:
    program = formats.open_onnx(path)
    return lambda image: program(image) + 0.01


def test_a_model_that_gives_other_probabilities_is_not_handed_over(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    swapped(monkeypatch, shifted)
    with pytest.raises(UserError) as error:
        export(made, tmp_path / "bundle", ExportOptions())
    sentence(
        error, "cannot be exported: at 5 x 7, batch 1", "differ by up to 0.01", "nothing was written", "try format=pt2"
    )
    assert left(tmp_path) == []


class Counting(nn.Module):
    """A loop over what the image holds, which no exporter can follow."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x.abs().sum()) % 3):
            x = x + 1
        return x


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_gets_the_reason_and_what_to_change(tmp_path, monkeypatch):
    monkeypatch.setitem(CONTEXT._classes, "odd_one", Counting)
    path = saved(tmp_path, context="odd_one", down=["avg"])
    before = left(path.parent.parent)
    with pytest.raises(UserError) as error:
        export(path, None, ExportOptions())
    sentence(error, "format=onnx: the network cannot be exported: ", "try format=pt2", "another operator")
    assert left(path.parent.parent) == before


def test_labels_may_differ_at_near_ties_only():
    expected = torch.tensor([[0.50005, 0.8], [0.49995, 0.2]]).view(1, 2, 2)  # two samples, two classes
    assert compare_labels(torch.tensor([[0, 0]], dtype=torch.uint8), expected) == (0, 0)
    assert compare_labels(torch.tensor([[1, 0]], dtype=torch.uint8), expected) == (1, pytest.approx(1e-4, rel=1e-2))
    assert compare_labels(torch.tensor([[0, 1]], dtype=torch.uint8), expected) == (1, pytest.approx(0.6))
    net = Deployed(Segmenter(DESCRIPTION))
    takes = input_spec(net.segmenter)
    assert parity(net, net, takes)["labels_differing_at_near_ties"] == 0
    with pytest.raises(UserError, match=r"at 5 x 7, batch 1 \d+ labels differ"):
        parity(lambda image: (net(image).argmax(1) + 1) % 3, net, takes)
    assert [place for place, _, _ in side_by_side(net, net, takes)][-2:] == ["at 2 x 2, batch 1", "at 2 x 2, batch 2"]
    with pytest.raises(UserError, match="its output is"):
        parity(lambda image: net(image)[..., 1:], net, takes)
    with pytest.raises(UserError, match="not finite"):
        parity(lambda image: net(image) * torch.nan, net, takes)


@pytest.mark.parametrize("stride", [(1,), (2, 2), (16, 16), (3, 4), (8, 4, 2)])
def test_sizes_to_check_are_three_odd_ones_that_the_network_takes(stride: tuple[int, ...]):
    sizes = odd_sizes(stride)
    assert len(set(sizes)) == 3
    assert all(n % 2 and n > 2 * least for size in sizes for n, least in zip(size, stride, strict=True))


def test_tiles_overlap_by_the_receptive_field():
    """Depth 0: two 3-wide convolutions have a field of 5 samples."""

    def of(eval_tile: list[int] | None = None, **model: Any) -> TileSpec:
        model = {"in_channels": 3, "num_classes": 3, "width": 4, **model}
        return tile_spec(Segmenter({**DESCRIPTION, "model": model, "eval_tile": eval_tile, "eval_overlap": 0.5}))

    default = of(depth=0, spatial_dims=2)
    assert (default.field, default.tile, default.overlap, default.covers_field) == ((5, 5), (1024, 1024), (5, 5), True)
    assert default.multi_tile_size() == (1537, 2**19 // 1537)
    evaluated = of([30, 40], depth=2, spatial_dims=2)
    assert (evaluated.tile, evaluated.overlap, evaluated.covers_field) == ((32, 40), (15, 20), False)
    assert evaluated.multi_tile_size() == (49, 61)
    unlimited = of(depth=1, norm="instance", spatial_dims=1)
    assert (unlimited.tile, unlimited.overlap, unlimited.covers_field) == ((2**18,), (2**16,), False)
    assert unlimited.to_json()["receptive_field"] == [None]


def test_tiling_changes_a_network_that_sees_the_whole_image_and_no_other():
    image = torch.rand(1, 2, 24, 31)
    tiles = TileSpec((8, 8), (2, 2), (1, 1), (1, 1))

    def looks_at_all(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :1], x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x[:, :1])], 1).softmax(1)

    alone = tiling_error(lambda x: x.softmax(1), image, tiles)
    assert alone["label_agreement"] == 1 and alone["largest_difference"] < 1e-6
    aware = tiling_error(looks_at_all, image, tiles)
    assert aware["label_agreement"] < 1 and aware["largest_difference"] > 0.01


# Variants ------------------------------------------------------------------------------------------------------------


def pictured(folder: Path, count: int = 4, masks: bool = True) -> Path:
    """Smooth pictures, and masks in which 255 is unlabelled."""
    for seed in range(count):
        small = Image.fromarray(noise(4, 5, 3, seed=seed))
        small.resize((34, 27), Image.Resampling.BICUBIC).save(save(folder / "images" / f"{seed}.png", noise(1, 1, 3)))
        if masks:
            target = noise(27, 34, below=3, seed=seed)
            target[0] = 255
            save(folder / "masks" / f"{seed}.png", target)
    return folder


@pytest.mark.slow
def test_int8_is_measured_and_refused_below_the_agreement(tmp_path: Path):
    path, data = saved(tmp_path), pictured(tmp_path / "data")
    folder, content = export(
        path, tmp_path / "bundle", ExportOptions(variant="int8", calibration=data, min_label_agreement=0.5)
    )
    accuracy = content["variant"]["against_float32"]
    assert accuracy["images"] == 2 and 0.5 <= accuracy["label_agreement"] <= 1
    program, image = FORMATS["onnx"].open(folder / content["model"]["file"]), noise(2, 3, 19, 23)
    difference = np.abs(program(torch.from_numpy(image)).numpy() - by_hand(path, image)).max()
    assert 1e-4 < difference < 0.2, "fewer bits, but the same network"
    with pytest.raises(UserError) as error:
        export(path, tmp_path / "second", ExportOptions(variant="int8", calibration=data, min_label_agreement=1))
    sentence(error, "variant=int8", "of the samples of 2 images", "mIoU", "below min_label_agreement=1")
    assert left(tmp_path) == ["bundle", "data", "up=max"]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"format": "onx"}, ["format: unknown 'onx'; did you mean onnx?", "valid: onnx, pt2"]),
        ({"variant": "int4"}, ["variant: unknown 'int4'; did you mean int8?"]),
        ({"labels": "maybe"}, ["labels: expected true or false, found 'maybe'"]),
        ({"variant": "bf16"}, ["variant: unknown 'bf16'", "valid: float32, int8"]),
        ({"variant": "int8", "format": "pt2"}, ["variant=int8 format=pt2", "use format=onnx"]),
        ({"variant": "int8"}, ["add calibration=FOLDER"]),
        (
            {"variant": "int8", "calibration": Path(), "min_label_agreement": 2},
            ["min_label_agreement: expected a fraction of 0 to 1, found 2"],
        ),
    ],
    ids=str,
)
def test_choices_that_do_not_go_together_are_refused(options: dict, parts: list[str]):
    with pytest.raises(UserError) as error:
        ExportOptions(**options)
    sentence(error, *parts)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(UserError, match=r"format=onnx needs onnxruntime; run: pip install -e '\.\[export\]'"):
        ExportOptions()
    ExportOptions("pt2")


def test_the_type_of_the_images_is_the_checkpoints_or_asked_for():
    old = Segmenter({key: value for key, value in DESCRIPTION.items() if key not in ("dtype", "range")})
    with pytest.raises(UserError, match=r"lacks the dtype of its training images; add dtype=uint8"):
        input_spec(old)
    assert input_spec(old, "uint16").value_range == (0, 65535) and input_spec(old, "float32").value_range is None
    with pytest.raises(UserError, match=r"dtype: unknown 'uint9'; did you mean uint8\?"):
        input_spec(old, "uint9")
    with pytest.raises(UserError, match=r"dtype=float32: the network was trained on uint8 images"):
        input_spec(Segmenter(DESCRIPTION), "float32")


@pytest.mark.parametrize(
    "image, mask, parts",
    [
        (noise(9, 9), noise(9, 9, below=3), ["1.png: 9 x 9 x 1", "expected 3 channels of uint8"]),
        (noise(9, 9, 3), noise(9, 8, below=3), ["1.png: its mask is 9 x 8, the image 9 x 9"]),
        (
            noise(9, 9, 3),
            np.full((9, 9), 7, np.uint8),
            ["masks", "1.png: label 7 is outside the 3 classes", "with values"],
        ),
        (noise(1, 9, 3), noise(1, 9, below=3), ["1.png: 1 x 9, smaller than the network takes (2 x 2)"]),
    ],
    ids=["grey", "sizes", "label", "small"],
)
def test_a_picture_that_does_not_fit_is_named(image, mask, parts, made: Path, tmp_path: Path):
    data = pictured(tmp_path / "data", 1)
    save(data / "images" / "1.png", image)
    save(data / "masks" / "1.png", mask)
    with pytest.raises(UserError) as error:
        export(made, tmp_path / "bundle", ExportOptions(variant="int8", calibration=data))
    sentence(error, *parts)
    assert left(tmp_path) == ["data"]


def test_too_few_pictures_and_a_missing_mask_are_refused(made: Path, tmp_path: Path):
    data = pictured(tmp_path / "data", 1)
    with pytest.raises(UserError, match="1 images; it needs at least two"):
        export(made, tmp_path / "bundle", ExportOptions(variant="int8", calibration=data))
    save(data / "images" / "1.png", noise(9, 9, 3))
    with pytest.raises(UserError, match=r"1\.png: no mask"):
        export(made, tmp_path / "bundle", ExportOptions(variant="int8", calibration=data))
    with pytest.raises(UserError, match="gone: no such folder"):
        export(made, tmp_path / "bundle", ExportOptions(variant="int8", calibration=tmp_path / "gone"))


def test_nothing_is_overwritten_and_a_folder_that_cannot_be_made_is_named(made: Path, tmp_path: Path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UserError, match="bundle: already there and not overwritten"):
        export(made, tmp_path / "bundle", ExportOptions())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="bundle: cannot be written"):
        export(made, tmp_path / "file" / "bundle", ExportOptions())


def test_samples_are_like_the_training_images():
    takes = InputSpec("uint8", [100.0, 50.0], [30.0, 10.0], (0, 255), (2, 2), (2, 2))
    image = takes.random_image(4, (65, 64)).double()
    assert image.mean(dim=(0, 2, 3)).tolist() == pytest.approx([100, 50], abs=6)
    assert image.std(dim=(0, 2, 3)).tolist() == pytest.approx([30, 10], rel=0.15)
    assert torch.equal(takes.random_image(1, (3, 3)), takes.random_image(1, (3, 3)))


def test_a_training_keeps_how_its_images_are_stored():
    def of(*images: np.ndarray) -> Samples:
        items = [Item("one", partial(in_memory_pair, image, np.zeros(image.shape[:-1], np.uint8))) for image in images]
        return Samples(items, 2, 1, 0, "train")

    assert (of(noise(5, 1, below=7)).dtype, of(np.uint8([[3], [9]])).range) == (np.uint8, (3, 9))
    mixed = of(np.uint8([[3], [9]]), np.float32([[-0.5], [2]]))
    assert mixed.dtype == np.float32 and mixed.range == (-0.5, 9)


# The command ---------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess:
    return processes.run([str(ROOT / "scripts" / "export.py"), *arguments], Path.cwd())


@pytest.mark.slow
def test_the_command_takes_a_path_with_an_equals_sign_and_says_what_it_made(tmp_path: Path):
    path = saved(tmp_path)
    done = command(f"ckpt={path}", "format=pt2", f"output={tmp_path / 'x=1'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x=1" / "model.pt2").is_file() and "probabilities differ by at most" in done.stdout
