"""Random damage gives an error message of one line that names the file or key, or a valid result.

The environment variable ``FUZZ`` multiplies the number of examples: ``FUZZ=20 pytest tests/test_fuzz.py``.
"""

import io
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_inputs import DESCRIPTION, state
from conftest import VOLUMES, config
from folders import CLASSES, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from unet import load
from unet.data.files import file_item
from unet.data.label_map import LabelMap
from unet.data.samples import read_item
from unet.data_check.file_facts import read_facts
from unet.errors import UserError
from unet.io.atomic import read_json
from unet.io.image_reader import open_image
from unet.network.model import UNet
from unet.report.read_sweep import read_run
from unet.training.config_limits import LIMITS, validate_config

FACTOR = int(os.environ.get("FUZZ", "1"))


def examples(number: int) -> settings:
    return settings(max_examples=FACTOR * number, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_line(error: UserError, name: str) -> None:
    assert "\n" not in str(error) and name in str(error), error


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return a function that truncates a file, or changes, doubles or removes bytes, often near the beginning."""
    kind = draw(st.sampled_from(["cut", "change", "change", "remove", "double"]))
    positions = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6))
    near = draw(st.booleans())
    values = draw(st.lists(st.sampled_from([0, 1, 127, 128, 254, 255]), min_size=6, max_size=6))

    def spoil(content: bytes) -> bytes:
        result = bytearray(content)
        for position, value in zip(positions, values, strict=False):
            at = int(position * (min(64, len(result)) if near else len(result)))
            if kind == "cut":
                del result[at:]
            elif kind == "change" and result:
                result[at] = value
            elif kind == "remove":
                del result[at : at + 1 + value % 7]
            elif kind == "double":
                result[at:at] = result[at : at + 1 + value % 7]
        return bytes(result)

    return spoil


def picture(kind: str, mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(9, 7, 3)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def valid_files() -> dict[str, bytes]:
    """Return a valid file of every format."""
    numbers, pages = io.BytesIO(), [Image.fromarray(noise(9, 7, seed=seed)) for seed in range(3)]
    np.save(numbers, noise(9, 7, 3))
    files = {
        "rgb.png": picture("PNG", "RGB"),
        "palette.png": picture("PNG", "P"),
        "grey.png": picture("PNG", "L"),
        "a.jpg": picture("JPEG", "RGB"),
        "cmyk.jpg": picture("JPEG", "CMYK"),
        "a.tif": picture("TIFF", "RGB"),
        "packed.tif": picture("TIFF", "RGB", compression="tiff_deflate"),
        "pages.tif": picture("TIFF", "L", save_all=True, append_images=pages),
        "float.tif": picture("TIFF", "F"),
        "a.bmp": picture("BMP", "RGB"),
        "a.webp": picture("WEBP", "RGB"),
        "a.npy": numbers.getvalue(),
    }
    if VOLUMES:
        import nibabel

        files["a.nii"] = nibabel.Nifti1Image(noise(5, 4, 3), np.eye(4)).to_bytes()
    return files


NAMES = [*valid_files()]


@examples(150)
@given(st.sampled_from(NAMES), damages())
def test_a_damaged_image_or_mask_is_read_or_rejected(tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]):
    path = tmp_path / name
    path.write_bytes(spoil(valid_files()[name]))
    for read in (
        lambda path: open_image(path, 2).pixels(),
        LabelMap({value: CLASSES[value % 2] for value in range(256)}, CLASSES).read,
    ):
        try:
            array = read(path)
        except UserError as error:
            one_line(error, name)
        else:
            assert isinstance(array, np.ndarray) and array.dtype in (np.uint8, np.uint16, np.float32)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))


@examples(80)
@given(st.sampled_from(MODES), SIZES, st.sampled_from(["1", "L", "P", "RGB", "I;16", "F"]), SIZES, st.integers(0, 3))
def test_any_image_with_any_mask_is_an_item_or_rejected(
    tmp_path: Path, mode: str, size: tuple[int, int], kind: str, mask_size: tuple[int, int], value: int
):
    """Check that training and data check agree."""
    image, mask = tmp_path / "x.tif", tmp_path / "m.tif"
    pictures = {image: (mode, size), mask: (kind, size if value % 2 else mask_size)}
    for path, (mode, extent) in pictures.items():
        try:
            Image.new(mode, extent, (value,) * 3 if mode == "RGB" else 0).save(path)
        except (OSError, KeyError, ValueError, TypeError):
            return  # Pillow cannot write such a TIFF
    item = file_item(image, mask, LabelMap(None, CLASSES))
    facts = read_facts(item, "train", True)
    try:
        pixels, target = read_item(item, 2, 2)
    except UserError as error:
        one_line(error, "x.tif" if "x.tif" in str(error) else "m.tif")
    else:
        assert not facts.errors and facts.image is not None
        assert pixels.shape[:2] == target.shape == facts.image.size == pictures[image][1][::-1]
        assert set(np.unique(target)) <= {0, 1}


@examples(60)
@given(
    st.sampled_from(["?", "u1", "i1", "u2", ">u2", "i4", "u8", "f2", "f4", ">f4", "f8", "c8", "U1", "M8[s]", "O"]),
    st.lists(st.integers(0, 3), max_size=5),
    st.booleans(),
)
def test_any_array_is_an_image_or_rejected(tmp_path: Path, dtype: str, shape: list[int], fortran: bool):
    path = tmp_path / "x.npy"
    array = np.zeros(shape, dtype)
    np.save(path, np.asfortranarray(array) if fortran else array, allow_pickle=True)
    try:
        image = open_image(path, 2).pixels()
    except UserError as error:
        one_line(error, "x.npy")
    else:
        assert image.dtype in (np.uint8, np.uint16, np.float32) and not image.any()
        assert image.shape[: len(shape)] == tuple(shape)


@cache
def valid_checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"description": DESCRIPTION, "state_dict": state()}, buffer)
    return buffer.getvalue()


@examples(60)
@given(damages())
def test_a_damaged_checkpoint_is_rejected_or_unchanged(tmp_path: Path, spoil: Callable[[bytes], bytes]):
    path = tmp_path / "best.ckpt"
    path.write_bytes(spoil(valid_checkpoint()))
    try:
        weights = load(path).state_dict()
    except UserError as error:
        one_line(error, "best.ckpt")
    else:
        assert weights.keys() == state().keys()
        assert all(torch.isfinite(value).all() for value in weights.values())


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70000),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.integers(-1, 3), st.floats(), st.text(max_size=3), st.none()), max_size=4),
    st.dictionaries(
        st.sampled_from(["name", "kernel_size", "p", "x"]), st.sampled_from(["max", "spp", 2, -1, None]), max_size=2
    ),
)


@pytest.mark.filterwarnings("ignore:the bottleneck is")
@examples(80)
@given(
    st.lists(
        st.sampled_from([*DESCRIPTION, *DESCRIPTION["model"], "down", "up", "context", "norm"]), min_size=1, max_size=2
    ),
    VALUES,
)
def test_a_checkpoint_with_another_description_is_rejected_or_works(tmp_path: Path, keys: list[str], value: Any):
    model, outer = dict(DESCRIPTION["model"]), dict(DESCRIPTION)
    for key in keys:
        (outer if key in DESCRIPTION else model)[key] = value
    description = {**outer, "model": outer["model"] if "model" in keys else model}
    path = tmp_path / "best.ckpt"
    torch.save({"description": description, "state_dict": state()}, path)
    try:
        network = load(path)
    except UserError as error:
        one_line(error, "best.ckpt")
    else:
        assert network(torch.zeros(1, 2, 8, 8)).shape == (1, 3, 8, 8)


NETWORK = ["width", "depth", "down", "up", "context", "skip", "stride", "spatial_dims", "norm", "act", "dropout"]


@examples(150)
@given(st.sampled_from(NETWORK), VALUES)
def test_any_value_of_a_network_setting_is_used_or_rejected(key: str, value: Any):
    settings: dict[str, Any] = {"in_channels": 1, "width": 2, "depth": 2, "spatial_dims": 2, key: value}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            UNet(**settings)
    except UserError as error:
        one_line(error, "model.")


@cache
def defaults() -> Any:
    return config("data=folder")


@examples(100)
@given(st.sampled_from([*LIMITS]), VALUES)
def test_any_value_of_a_config_key_is_within_its_limits_or_rejected(key: str, value: Any):
    values = defaults().copy()
    OmegaConf.update(values, key, value, merge=False, force_add=True)
    try:
        validate_config(values)
    except UserError as error:
        one_line(error, key)
    else:
        assert LIMITS[key].accepts(value)


@examples(60)
@given(st.sampled_from(["metrics.json", "status.json", "config.yaml"]), damages())
def test_a_run_with_a_damaged_file_is_read_or_reported_as_unreadable(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]
):
    files = {
        "metrics.json": b'{"test/miou": 0.5, "seed": 1}',
        "status.json": b'{"state": "done", "reason": ""}',
        "config.yaml": b"# python train.py 'model.down=[max,avg]' seed=1\nmodel: {down: [max, avg]}\nseed: 1\n",
    }
    for file, content in files.items():
        (tmp_path / file).write_bytes(spoil(content) if file == name else content)
    run = read_run(tmp_path)
    assert isinstance(run.metrics, dict) and isinstance(run.state, str) and "\n" not in run.reason
    try:
        read_json(tmp_path / "status.json")
    except UserError as error:
        one_line(error, "status.json")
