"""An exported bundle has the outputs of the trained network and runs without the project."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import processes
import pytest
import tifffile
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
from unet.export.check import check_parity, compare_labels, odd_sizes, output_pairs, tiling_error
from unet.export.deployed import DeployedModel, input_spec
from unet.export.formats import FORMATS
from unet.export.tiles import TileSpec, tile_spec
from unet.inference.checkpoint import load
from unet.inference.segmenter import Segmenter
from unet.network.registry import CONTEXT

onnx = pytest.importorskip("onnx")
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


def save_checkpoint(folder: Path, description: dict[str, Any] = DESCRIPTION, **model: Any) -> Path:
    """Write a run folder with a checkpoint of a random network and a score; return the checkpoint."""
    torch.manual_seed(0)
    description = {**description, "model": {**description["model"], **model}}
    path = folder / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    (path.parent.parent / "metrics.json").write_text('{"test/miou": 0.75}')
    net = Segmenter(description)
    net.net.head.weight.data *= 20
    spec = input_spec(net)
    logits = net.eval()(spec.random_image(1, (32,) * len(spec.total_stride))).detach()
    net.net.head.bias.data -= logits.transpose(0, 1).flatten(1).mean(1)  # every class is predicted somewhere
    torch.save({"description": description, "state_dict": net.state_dict()}, path)
    return path


def expected_probabilities(path: Path, image: np.ndarray) -> np.ndarray:
    """Return probabilities (B, K, H, W) of pixels (B, C, H, W): normalise, predict, subtract log weights, softmax."""
    column = [np.array(DESCRIPTION[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std", "log_weights")]
    with torch.no_grad():
        logits = load(path).net(torch.from_numpy((image.astype(np.float32) - column[0]) / column[1])).numpy()
    exponent = np.exp(logits - column[2])
    return exponent / exponent.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint whose run folder holds its bundle."""
    path = save_checkpoint(tmp_path_factory.mktemp("run"))
    folder, _ = export(path, None, ExportOptions())
    assert folder == path.parent.parent / "export_onnx"
    return path


def test_the_model_maps_pixels_to_probabilities(exported: Path):
    program = FORMATS["onnx"].open(exported.parent.parent / "export_onnx" / "model.onnx")
    for batch, *size in ((1, 7, 9), (3, 13, 2)):
        image = noise(batch, 3, *size)
        np.testing.assert_allclose(program(torch.from_numpy(image)), expected_probabilities(exported, image), atol=1e-5)


def test_a_bundle_describes_input_output_and_checkpoint(exported: Path):
    folder = exported.parent.parent / "export_onnx"
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.onnx", "run.py"]
    content = json.loads((folder / "bundle.json").read_text())
    assert content["model"]["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert content["checkpoint"] == {"file": "best.ckpt", "sha256": hashlib.sha256(exported.read_bytes()).hexdigest()}
    assert content["classes"] == DESCRIPTION["classes"] and content["colors"] == DESCRIPTION["colors"]
    spec = content["input"]
    assert (spec["layout"], spec["dtype"], spec["channels"], spec["range"]) == ("B C H W", "uint8", 3, [0, 255])
    assert spec["smallest"] == spec["total_stride"] == [2, 2]
    assert spec["eval_transforms"] == DESCRIPTION["eval_transforms"]
    assert content["output"] == {"name": "probabilities", "layout": "B K H W", "dtype": "float32"}
    assert (content["tiles"]["tile"], content["tiles"]["overlap"]) == ([22, 30], [7, 9])
    assert content["metrics"] == {"test/miou": 0.75}
    assert content["checked_against_torch"]["largest_difference"] <= 1e-4
    assert 0 <= content["tiling_error"]["label_agreement"] <= 1
    assert {"torch", "onnxruntime", "python", "commit"} <= content["versions"].keys()
    assert str(exported.parent.parent.parent) not in (folder / "bundle.json").read_text(), "no path of this machine"


def run_alone(folder: Path, forbidden: list[str], *arguments: Path) -> subprocess.CompletedProcess:
    """Run the bundle's example in a process in which ``forbidden`` packages cannot be imported."""
    source = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({forbidden!r}))\n"
        f"sys.argv = {['run.py', *map(str, arguments)]!r}\n"
        "runpy.run_path('run.py', run_name='__main__')\n"
        f"assert not [name for name in sys.modules if name.partition('.')[0] in {forbidden!r} and sys.modules[name]]"
    )
    return subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_example_needs_neither_torch_nor_this_project(exported: Path, tmp_path: Path):
    folder = shutil.copytree(exported.parent.parent / "export_onnx", tmp_path / "elsewhere")
    picture = noise(11, 13, 3)
    save(tmp_path / "in.png", picture)
    result = run_alone(folder, ["torch", "unet", "lightning", "onnx"], tmp_path / "in.png", tmp_path / "out.png")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out.png") as image:
        expected = expected_probabilities(exported, picture.transpose(2, 0, 1)[None]).argmax(1)[0]
        assert (np.asarray(image) == expected).all() and len(np.unique(expected)) > 1
        assert image.mode == "L"
    np.save(tmp_path / "in.npy", picture)
    assert run_alone(folder, ["torch", "unet"], tmp_path / "in.npy", tmp_path / "out.npy").returncode == 0
    assert (np.load(tmp_path / "out.npy") == expected).all()
    np.save(tmp_path / "deep.npy", picture.astype(np.uint16) * 257)
    np.save(tmp_path / "grey.npy", picture[..., 0])
    save(tmp_path / "deep.png", picture[..., 0].astype(np.uint16))
    cv2.imwrite(str(tmp_path / "deep16.png"), picture.astype(np.uint16) * 257)
    deep = np.moveaxis(picture, -1, 0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "planar.tif", deep, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([picture] * 2), photometric="rgb")
    (tmp_path / "text.png").write_text("no image")
    for name, message in (
        ("deep.npy", "uint16 values from 0 to 65535 are no uint8; rescale it"),
        ("grey.npy", "expected 2 axes and 3 channels, last"),
        ("deep.png", "more than 8 bits a channel"),
        ("deep16.png", "16 bits a channel, of which Pillow reads 8"),
        ("planar.tif", "16 bits a channel, of which Pillow reads 8"),
        ("pages.tif", "2 pages or frames"),
        ("text.png", "cannot be read as an image"),
    ):
        result = run_alone(folder, ["torch", "unet"], tmp_path / name, tmp_path / "none.png")
        assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "none.png").exists()


def test_the_example_shows_images_as_the_training_did(tmp_path: Path):
    """Black and white is 0 and 255, and values far below the training's are warned of."""
    grey = {**DESCRIPTION, "mean": [120.0], "std": [60.0]}
    folder, _ = export(save_checkpoint(tmp_path, grey, in_channels=1), None, ExportOptions())
    save(tmp_path / "in.png", noise(12, 12, below=2).astype(bool))
    save(tmp_path / "grey.png", noise(12, 12, below=2) * np.uint8(255))
    save(tmp_path / "dark.png", noise(12, 12, below=2))
    for name in ("in", "grey", "dark"):
        result = run_alone(folder, ["torch", "unet"], tmp_path / f"{name}.png", tmp_path / f"{name}.npy")
        assert result.returncode == 0 and ("warning" in result.stderr) == (name == "dark")
    assert np.array_equal(np.load(tmp_path / "in.npy"), np.load(tmp_path / "grey.npy"))


def test_the_axes_of_the_model_have_names(exported: Path):
    assert axes_of(exported.parent.parent / "export_onnx" / "model.onnx") == {
        "image": ["batch", 3, "height", "width"],
        "probabilities": ["batch", 3, "height", "width"],
    }


def axes_of(path: Path) -> dict[str, list[Any]]:
    graph = onnx.load(path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_a_fixed_size_and_an_opset_that_opencv_s_older_importer_reads(tmp_path: Path):
    """The importer of OpenCV 4 reads no sizes that are dynamic."""
    path = save_checkpoint(tmp_path)
    folder, content = export(path, None, ExportOptions(opset=18, size=[16, 24]))
    assert folder.name == "export_onnx_16x24_opset18"
    assert axes_of(folder / "model.onnx") == {"image": [1, 3, 16, 24], "probabilities": [1, 3, 16, 24]}
    assert content["opset"] == 18 == onnx.load(folder / "model.onnx").opset_import[0].version
    assert content["input"]["size"] == content["tiles"]["tile"] == [16, 24]
    checks = content["checked_against_torch"]
    assert (checks["sizes"], checks["batches"]) == ([[16, 24]], [1])
    image = noise(1, 3, 16, 24)
    net = cv2.dnn.readNetFromONNX(str(folder / "model.onnx"), cv2.dnn.ENGINE_CLASSIC)
    net.setInput(image.astype(np.float32))
    np.testing.assert_allclose(net.forward(), expected_probabilities(path, image), atol=1e-5)
    save(tmp_path / "in.png", noise(11, 13, 3))
    result = run_alone(folder, ["torch", "unet"], tmp_path / "in.png", tmp_path / "out.png")
    assert result.returncode == 1 and "the network takes images of size [16, 24] only" in result.stderr


def test_a_threshold_in_the_example(tmp_path: Path):
    two = {"classes": ["sky", "sea"], "colors": [[0, 0, 0], [9, 9, 9]], "log_weights": None, "reading": {"mode": "L"}}
    one = {"mean": [120.0], "std": [60.0]}
    path = save_checkpoint(tmp_path, {**DESCRIPTION, **two, **one}, num_classes=2, in_channels=1)
    folder, _ = export(path, tmp_path / "bundle", ExportOptions("pt2", size=[16, 24]))
    picture = noise(16, 24, 3)
    save(tmp_path / "in.png", picture)
    result = run_alone(folder, ["unet"], tmp_path / "in.png", tmp_path / "out.npy", Path("0.3"))
    assert result.returncode == 0, result.stderr
    assert np.array_equal(
        np.load(tmp_path / "out.npy"), load(path).predict(picture, threshold=0.3, transforms=False, precision="32-true")
    )


def test_the_code_of_the_docs_runs(exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    source = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(exported.parent.parent)
    picture = noise(12, 10, 3)
    save(Path("street.png"), picture)
    exec(source, {})
    expected = expected_probabilities(exported, picture.transpose(2, 0, 1)[None]).argmax(1)
    assert eval(capsys.readouterr().out) == {
        name: float((expected == label).mean()) for label, name in enumerate(DESCRIPTION["classes"])
    }


def test_labels_of_a_torch_program_and_its_example(tmp_path: Path):
    path = save_checkpoint(tmp_path)
    folder, content = export(path, tmp_path / "bundle", ExportOptions("pt2", labels=True))
    image = noise(2, 3, 9, 15)
    output = FORMATS["pt2"].open(folder / "model.pt2")(torch.from_numpy(image))
    assert output.dtype == torch.uint8 and (output.numpy() == expected_probabilities(path, image).argmax(1)).all()
    assert content["output"] == {"name": "labels", "layout": "B H W", "dtype": "uint8"}
    assert content["input"]["smallest"] == [3, 3], "torch.export does not support a bottleneck of size 1"
    assert content["checked_against_torch"]["largest_difference"] is None
    save(tmp_path / "in.png", image[0].transpose(1, 2, 0))
    result = run_alone(folder, ["unet", "lightning", "onnxruntime"], tmp_path / "in.png", tmp_path / "out.png")
    assert result.returncode == 0, result.stderr
    assert (np.asarray(Image.open(tmp_path / "out.png")) == output[0].numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype, dims, norm", [("uint16", 1, "instance"), ("float32", 3, "batch")])
def test_sequences_volumes_and_other_dtypes(dtype: str, dims: int, norm: str, tmp_path: Path):
    description = {"mean": [300.0], "std": [200.0], "dtype": dtype, "range": [-2000.0, 2000.0], "eval_tile": None}
    path = save_checkpoint(tmp_path, {**DESCRIPTION, **description}, in_channels=1, spatial_dims=dims, norm=norm)
    folder, content = export(path, tmp_path / "bundle", ExportOptions("onnx", labels=dims == 3))
    program, net = FORMATS["onnx"].open(folder / "model.onnx"), DeployedModel(load(path))
    image = torch.from_numpy(noise(2, 1, *(5, 7, 9)[:dims], below=1000).astype(dtype))
    output, expected = program(image), net(image).detach()
    torch.testing.assert_close(output.long() if dims == 3 else output, expected.argmax(1) if dims == 3 else expected)
    assert content["input"]["range"] == ([0, 65535] if dtype == "uint16" else [-2000, 2000])
    # Instance norm cannot normalise a single value.
    assert content["input"]["smallest"] == ([3] if norm == "instance" else [2] * dims)


# Checks -----------------------------------------------------------------------------------------------------


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_with_other_probabilities_is_not_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def open_shifted(path: Path) -> formats.Program:
        program = formats.open_onnx(path)
        return lambda image: program(image) + 0.01

    monkeypatch.setitem(bundle.FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], open=open_shifted))
    with pytest.raises(UserError) as error:
        export(exported, tmp_path / "bundle", ExportOptions())
    sentence(error, "at 5 x 7, batch 1", "differ by up to 0.01", "nothing was written", "try format=pt2")
    assert file_names(tmp_path) == []


class DataDependent(nn.Module):
    """A loop that depends on the image's values, which cannot be exported."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x.abs().sum()) % 3):
            x = x + 1
        return x


@pytest.mark.slow
def test_the_error_of_a_network_that_cannot_be_exported(tmp_path, monkeypatch):
    monkeypatch.setitem(CONTEXT._classes, "odd_one", DataDependent)
    path = save_checkpoint(tmp_path, context="odd_one", down=["avg"])
    names = file_names(path.parent.parent)
    with pytest.raises(UserError) as error:
        export(path, None, ExportOptions())
    sentence(error, "format=onnx: the network cannot be exported: ", "try format=pt2", "another operator")
    assert file_names(path.parent.parent) == names


def test_labels_may_differ_at_near_ties_only():
    expected = torch.tensor([[0.50005, 0.8], [0.49995, 0.2]]).view(1, 2, 2)  # two pixels, two classes
    assert compare_labels(torch.tensor([[0, 0]], dtype=torch.uint8), expected) == (0, 0)
    assert compare_labels(torch.tensor([[1, 0]], dtype=torch.uint8), expected) == (1, pytest.approx(1e-4, rel=1e-2))
    assert compare_labels(torch.tensor([[0, 1]], dtype=torch.uint8), expected) == (1, pytest.approx(0.6))
    net = DeployedModel(Segmenter(DESCRIPTION))
    spec = input_spec(net.segmenter)
    assert check_parity(net, net, spec)["labels_differing_at_near_ties"] == 0
    with pytest.raises(UserError, match=r"at 5 x 7, batch 1 \d+ labels differ"):
        check_parity(lambda image: (net(image).argmax(1) + 1) % 3, net, spec)
    assert [case for case, _, _ in output_pairs(net, net, spec)][-2:] == ["at 2 x 2, batch 1", "at 2 x 2, batch 2"]
    with pytest.raises(UserError, match="the output has shape"):
        check_parity(lambda image: net(image)[..., 1:], net, spec)
    with pytest.raises(UserError, match="not finite"):
        check_parity(lambda image: net(image) * torch.nan, net, spec)


@pytest.mark.parametrize("stride", [(1,), (2, 2), (16, 16), (3, 4), (8, 4, 2)])
def test_parity_is_checked_at_three_odd_sizes(stride: tuple[int, ...]):
    sizes = odd_sizes(stride)
    assert len(set(sizes)) == 3
    assert all(n % 2 and n > 2 * minimum for size in sizes for n, minimum in zip(size, stride, strict=True))


def test_tiles_overlap_by_the_receptive_field():
    """Depth 0: two 3-wide convolutions have a field of 5 pixels."""

    def spec_of(eval_tile: list[int] | None = None, **model: Any) -> TileSpec:
        model = {"in_channels": 3, "num_classes": 3, "width": 4, **model}
        return tile_spec(Segmenter({**DESCRIPTION, "model": model, "eval_tile": eval_tile, "eval_overlap": 0.5}))

    default = spec_of(depth=0, spatial_dims=2)
    assert (default.field, default.tile, default.overlap, default.covers_field) == ((5, 5), (1024, 1024), (5, 5), True)
    assert default.multi_tile_size() == (1537, 2**19 // 1537)
    evaluated = spec_of([30, 40], depth=2, spatial_dims=2)
    assert (evaluated.tile, evaluated.overlap, evaluated.covers_field) == ((32, 40), (15, 20), False)
    assert evaluated.multi_tile_size() == (49, 61)
    unlimited = spec_of(depth=1, norm="instance", spatial_dims=1)
    assert (unlimited.tile, unlimited.overlap, unlimited.covers_field) == ((2**18,), (2**16,), False)
    assert unlimited.to_json()["receptive_field"] == [None]


def test_tiling_changes_only_a_network_that_depends_on_the_whole_image():
    image = torch.rand(1, 2, 24, 31)
    tiles = TileSpec((8, 8), (2, 2), (1, 1), (1, 1))

    def use_global_mean(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :1], x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x[:, :1])], 1).softmax(1)

    local = tiling_error(lambda x: x.softmax(1), image, tiles)
    assert local["label_agreement"] == 1 and local["largest_difference"] < 1e-6
    global_ = tiling_error(use_global_mean, image, tiles)
    assert global_["label_agreement"] < 1 and global_["largest_difference"] > 0.01


# Variants ------------------------------------------------------------------------------------------------------------


def save_images(folder: Path, count: int = 4) -> Path:
    """Write smooth images, and masks in which 255 is unlabelled."""
    for seed in range(count):
        small = Image.fromarray(noise(4, 5, 3, seed=seed))
        small.resize((34, 27), Image.Resampling.BICUBIC).save(save(folder / "images" / f"{seed}.png", noise(1, 1, 3)))
        target = noise(27, 34, below=3, seed=seed)
        target[0] = 255
        save(folder / "masks" / f"{seed}.png", target)
    return folder


@pytest.mark.slow
def test_int8_is_measured_and_rejected_below_min_label_agreement(tmp_path: Path):
    path, data = save_checkpoint(tmp_path), save_images(tmp_path / "data")
    options = {"variant": "int8", "calibration": data}
    folder, content = export(path, tmp_path / "bundle", ExportOptions(**options, min_label_agreement=0.5))
    accuracy = content["variant"]["against_float32"]
    assert accuracy["images"] == 2 and 0.5 <= accuracy["label_agreement"] <= 1
    program, image = FORMATS["onnx"].open(folder / content["model"]["file"]), noise(2, 3, 19, 23)
    difference = np.abs(program(torch.from_numpy(image)).numpy() - expected_probabilities(path, image)).max()
    assert 1e-4 < difference < 0.2
    with pytest.raises(UserError) as error:
        export(path, tmp_path / "second", ExportOptions(**options, min_label_agreement=1))
    sentence(error, "variant=int8", "of the pixels of 2 images", "mIoU", "below min_label_agreement=1")
    assert file_names(tmp_path) == ["bundle", "data", "run"]


# Invalid input --------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(UserError, match=r"format=onnx needs onnxruntime; run: pip install -e '\.\[export\]'"):
        ExportOptions()
    ExportOptions("pt2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 13}, "opset: expected null or an integer of 18 .* to .*, found 13"),
        ({"opset": 999}, "found 999"),
        ({"opset": 18, "format": "pt2"}, "only ONNX has an opset"),
        ({"size": [16, 16], "variant": "int8", "calibration": Path("x")}, "leave one of the two out"),
        ({"size": [16]}, r"size: expected 2 multiples of the total stride \(2 x 2\), .* such as size=\[32,32\]"),
        ({"size": [16, 15]}, "size: expected 2 multiples"),
        ({"size": 16}, "size: expected 2 multiples"),
    ],
)
def test_an_unsupported_opset_or_size_is_refused(exported: Path, tmp_path: Path, options: dict, message: str):
    with pytest.raises(UserError, match=message):
        export(exported, tmp_path / "bundle", ExportOptions(**options))
    assert file_names(tmp_path) == []


def test_an_opset_that_the_exporter_does_not_reach_is_refused(exported: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(formats, "read_opset", lambda path: 18)
    with pytest.raises(UserError, match=r"^opset=20: the exporter wrote opset 18 instead; choose that"):
        export(exported, tmp_path / "bundle", ExportOptions(opset=20))
    assert file_names(tmp_path) == []


def test_the_dtype_is_that_of_the_checkpoint_or_of_the_options():
    old = Segmenter({key: value for key, value in DESCRIPTION.items() if key not in ("dtype", "range")})
    assert input_spec(old, "uint16").value_range == (0, 65535) and input_spec(old, "float32").value_range is None
    with pytest.raises(UserError, match=r"dtype: unknown 'uint9'; did you mean uint8\?"):
        input_spec(old, "uint9")


@pytest.mark.parametrize(
    "mask, parts",
    [
        (noise(9, 8, below=3), ["1.png: its mask is 9 x 8, the image 9 x 9"]),
        (np.full((9, 9), 7, np.uint8), ["masks", "1.png: label 7 is outside the 3 classes", "with values"]),
        (None, ["1.png: no mask"]),
    ],
    ids=["sizes", "label", "none"],
)
def test_an_invalid_mask_is_named(mask: np.ndarray | None, parts: list[str], exported: Path, tmp_path: Path):
    data = save_images(tmp_path / "data", 1)
    save(data / "images" / "1.png", noise(9, 9, 3))
    if mask is not None:
        save(data / "masks" / "1.png", mask)
    with pytest.raises(UserError) as error:
        export(exported, tmp_path / "bundle", ExportOptions(variant="int8", calibration=data))
    sentence(error, *parts)
    assert file_names(tmp_path) == ["data"]


def test_a_folder_that_cannot_be_created_is_named(exported: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="bundle: cannot be written"):
        export(exported, tmp_path / "file" / "bundle", ExportOptions())


def test_dtype_and_range_of_the_training_images():
    def samples_of(*images: np.ndarray) -> Samples:
        reads = [partial(in_memory_pair, image, np.zeros(image.shape[:-1], np.uint8)) for image in images]
        return Samples([Item("image", read) for read in reads], 2, 1, 0, "train")

    integers, mixed = samples_of(np.uint8([[3], [9]])), samples_of(np.uint8([[3], [9]]), np.float32([[-0.5], [2]]))
    assert (integers.dtype, integers.range) == (np.uint8, (3, 9))
    assert (mixed.dtype, mixed.range) == (np.float32, (-0.5, 9))


# The command ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_a_summary(tmp_path: Path):
    options = [f"ckpt={save_checkpoint(tmp_path)}", "format=pt2", f"output={tmp_path / 'bundle'}"]
    result = processes.run([str(ROOT / "scripts" / "export.py"), *options], tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "bundle" / "model.pt2").is_file() and "probabilities differ by at most" in result.stdout
