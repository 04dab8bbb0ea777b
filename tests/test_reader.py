"""Every kind of file is read as the array that was written, whole and in parts, as an image and as a mask."""

import importlib.util
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from conftest import config, needs_volumes
from folders import CLASSES, folder_of, noise, scanned, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import network
from PIL import Image

from unet.data.files import FilePair
from unet.data.folder import Folder
from unet.data.image_range import image_range
from unet.data.label_map import LabelMap
from unet.data_check.findings import collect_findings
from unet.data_check.survey import survey_data
from unet.errors import UserError
from unet.inference.options import PredictOptions
from unet.io.image_reader import ReadOptions, open_image
from unet.io.tiff import parse_nodata
from unet.network.normalization import Normalize
from unet.prediction.predict_file import predict_file
from unet.prediction.predict_folder import DONE, BatchOptions, predict_files
from unet.training.build import build_data, checkpoint_metadata
from unet.training.data_warnings import data_warnings
from unet.training.file_headers import declared_nodata, volume_grid

H, W = 37, 29
needs_codecs = pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is None, reason="imagecodecs is missing")
needs_vips = pytest.mark.skipif(importlib.util.find_spec("pyvips") is None, reason="pyvips is missing")


def values(channels: int, dtype: str) -> np.ndarray:
    """Return an array (H, W, C) with negative values and the limits of the type among it."""
    kind = np.dtype(dtype)
    pixels = np.random.default_rng(channels).normal(0, 1000, (H, W, channels))
    if kind.kind in "ui":
        info = np.iinfo(kind)
        pixels = np.random.default_rng(channels).integers(
            info.min, info.max, (H, W, channels), kind.newbyteorder("="), True
        )
        pixels[0, 0], pixels[-1, -1] = info.min, info.max
    return pixels.astype(kind)


def check(path: Path, expected: np.ndarray, **options: Any) -> None:
    """Check the whole image, its rows in three parts, and its type."""
    for in_parts in (False, True):
        reader = open_image(path, 2, ReadOptions(**options), in_parts=in_parts)
        assert (*reader.size, reader.channels) == expected.shape
        native = expected.dtype.newbyteorder("=")
        dtype = native if native in (np.uint8, np.uint16) else np.dtype(np.float32)
        assert reader.pixels().dtype == dtype
        assert np.array_equal(reader.pixels(), expected.astype(dtype), equal_nan=True)
        parts = [reader.rows(begin, end) for begin, end in ((0, 5), (3, 20), (20, len(expected)))]
        assert np.array_equal(
            np.concatenate([parts[0], parts[1][2:], parts[2]]), expected.astype(dtype), equal_nan=True
        )


DTYPES = ["uint8", "uint16", "int8", "int16", "int32", "uint32", "float16", "float32", "float64"]
LAYOUTS: dict[str, dict] = {
    "strips": {},
    "tiles": {"tile": (16, 16)},
    "deflate": {"compression": "zlib", "rowsperstrip": 5},
    "big": {"bigtiff": True, "byteorder": ">"},
    "planar": {"planarconfig": "separate"},
    "planar tiles": {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiff(tmp_path: Path, dtype: str, channels: int, layout: str):
    options = LAYOUTS[layout]
    pixels = values(channels, dtype)
    planar = options.get("planarconfig") == "separate" and channels > 1
    stored = np.moveaxis(pixels, -1, 0) if planar else pixels
    if channels == 1:
        stored, options = pixels[..., 0], {key: value for key, value in options.items() if key != "planarconfig"}
    elif not planar:
        options = options | {"planarconfig": "contig"}
    photometric = "rgb" if channels in (3, 4) and np.dtype(dtype).kind == "u" else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, metadata=None, **options)
    check(tmp_path / "a.tif", pixels)


CODECS = {
    "lzw": (["uint8", "uint16", "float32"], {}),
    "zstd": (["uint8", "float32"], {}),
    "packbits": (["uint8", "uint16"], {}),
    "deflate": (["uint8", "uint16"], {"predictor": 2}),
    "lzw ": (["float32"], {"predictor": 3}),
    "lzma": (["uint16"], {}),
}


@needs_codecs
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", CODECS)
def test_tiff_of_every_compression(tmp_path: Path, compression: str, channels: int):
    dtypes, options = CODECS[compression]
    for dtype in dtypes:
        pixels = values(channels, dtype)
        stored = pixels[..., 0] if channels == 1 else pixels
        options = {"photometric": "minisblack" if channels == 1 else "rgb", "metadata": None, **options}
        tifffile.imwrite(tmp_path / "a.tif", stored, compression=compression.strip(), **options)
        check(tmp_path / "a.tif", pixels)


@needs_codecs
def test_what_pillow_decompresses_exactly_needs_no_imagecodecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kinds = [(1, "uint8"), (3, "uint8"), (1, "uint16"), (1, "float32"), (4, "uint8"), (3, "uint16"), (4, "infrared")]
    for number, (channels, dtype) in enumerate(kinds):
        pixels = values(channels, "uint8" if dtype == "infrared" else dtype)
        extra = {"extrasamples": ["unspecified" if dtype == "infrared" else "unassalpha"]} if channels == 4 else {}
        photometric = "minisblack" if channels == 1 else "rgb"
        stored = pixels[..., 0] if channels == 1 else pixels
        tifffile.imwrite(tmp_path / f"{number}.tif", stored, compression="lzw", photometric=photometric, **extra)

    def refuse(*args: object, **options: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(lambda page: refuse))
    for number, (channels, dtype) in enumerate(kinds[:5]):
        check(tmp_path / f"{number}.tif", values(channels, dtype))
    for number in (5, 6):
        with pytest.raises(UserError) as error:
            open_image(tmp_path / f"{number}.tif", 2)
        sentence(error, f"{number}.tif", "LZW", "needs imagecodecs", "pip install")


def test_associated_alpha_is_unchanged(tmp_path: Path):
    pixels = values(4, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    check(tmp_path / "a.tif", pixels)


@needs_codecs
def test_jpeg_in_tiff_is_rgb(tmp_path: Path):
    pixels = np.full((32, 48, 3), (200, 100, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="jpeg", tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(open_image(tmp_path / "a.tif", 2).pixels().astype(int) - pixels).max() <= 3


STACKS: dict[str, tuple[str, dict, dict]] = {
    "ImageJ channels": ("CYX", {"imagej": True}, {}),
    "OME channels": ("CYX", {"ome": True}, {}),
    "plain pages, channels": ("QYX", {"metadata": None}, {"pages": "channels"}),
    "slices, read as channels": ("ZYX", {"imagej": True}, {"pages": "channels"}),
    "ImageJ slices": ("ZYX", {"imagej": True}, {}),
    "OME slices": ("ZYX", {"ome": True}, {}),
    "plain pages": ("QYX", {"metadata": None}, {}),
    "time, read as slices": ("TYX", {"imagej": True}, {"pages": "slices"}),
}


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_are_channels_or_slices(tmp_path: Path, kind: str, dtype: str):
    axes, written, options = STACKS[kind]
    pixels = np.moveaxis(values(4, dtype), -1, 0)
    metadata = {} if "metadata" in written else {"metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **written, **metadata)
    if axes[0] == "C" or options.get("pages") == "channels":
        check(tmp_path / "a.tif", np.moveaxis(pixels, 0, -1), **options)
    else:
        expected = pixels[..., None]
        reader = open_image(tmp_path / "a.tif", 3, ReadOptions(**options))
        assert np.array_equal(reader.pixels(), expected) and np.array_equal(reader.rows(1, 3), expected[1:3])


def test_a_stack_of_channels_and_slices_is_a_volume_with_channels(tmp_path: Path):
    pixels = noise(3, 2, H, W)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(open_image(tmp_path / "a.tif", 3).pixels(), np.moveaxis(pixels, 1, -1))
    assert np.array_equal(
        open_image(tmp_path / "a.tif", 2, ReadOptions(pages="channels")).pixels(),
        np.moveaxis(pixels.reshape(6, H, W), 0, -1),
    )


def test_pages_that_are_neither_are_named(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 9, 9), photometric="minisblack", metadata=None)
    with pytest.raises(UserError) as error:
        open_image(tmp_path / "a.tif", 2, size=(9, 9))
    sentence(error, "a.tif: an image of 4 x 9 x 9", "set data.source.pages=channels")
    tifffile.imwrite(tmp_path / "b.tif", noise(2, 3, 4, 9, 9), imagej=True, metadata={"axes": "TZCYX"})
    with pytest.raises(UserError) as error:
        open_image(tmp_path / "b.tif", 2)
    sentence(error, "b.tif", "T=2, Z=3", "data.source.pages=channels")


def test_overviews_are_left_out(tmp_path: Path):
    pixels = noise(64, 64, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", tile=(32, 32), metadata=None)
        tiff.write(pixels[::2, ::2], photometric="rgb", tile=(32, 32), subfiletype=1, metadata=None)
        tiff.write(np.ones((64, 64), bool), photometric="mask", subfiletype=4, metadata=None)
    check(tmp_path / "a.tif", pixels)


def test_pixels_outside_of_the_mask_of_a_geotiff_have_no_data(tmp_path: Path):
    pixels, valid = noise(64, 48, 3), noise(64, 48, below=2).astype(bool)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", tile=(32, 32), metadata=None)
        tiff.write(valid, photometric="mask", subfiletype=4, compression="zlib", rowsperstrip=10, metadata=None)
        tiff.write(pixels[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(valid[::2, ::2], photometric="mask", subfiletype=5, metadata=None)
    check(tmp_path / "a.tif", np.where(valid[..., None], pixels.astype(np.float32), np.nan))
    check(tmp_path / "a.tif", pixels, declared_nodata=False)


PNG: dict[str, Callable[[Path], np.ndarray]] = {}


def png(kind: str, pixels: np.ndarray) -> None:
    order = {1: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[-1]]
    PNG[kind] = lambda path: (cv2.imwrite(str(path), pixels[..., order]), pixels)[1]


for number in (1, 3, 4):
    for kind in ("uint8", "uint16"):
        png(f"{number} channels of {kind}", values(number, kind))


@pytest.mark.parametrize("kind", PNG)
def test_png(tmp_path: Path, kind: str):
    check(tmp_path / "a.png", PNG[kind](tmp_path / "a.png"))


def test_png_of_16_bit_grey_with_alpha(tmp_path: Path):
    pixels = values(2, "uint16")
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    check(tmp_path / "a.png", pixels)


@needs_vips
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_parts_of_a_large_image_are_those_of_the_whole(tmp_path, monkeypatch, suffix: str, channels: int):
    pixels = noise(300, 200, channels)[..., 0] if channels == 1 else noise(300, 200, channels)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    whole = open_image(tmp_path / f"a.{suffix}", 2).pixels()
    monkeypatch.setattr("unet.io.pictures.LARGE", 1)
    check(tmp_path / f"a.{suffix}", whole)
    reader = open_image(tmp_path / f"a.{suffix}", 2, in_parts=True)
    assert type(reader.stored.read).__name__ != "partial"
    for begin, end in ((200, 300), (0, 10), (150, 160)):  # rows that were passed are read again
        assert np.array_equal(reader.rows(begin, end), whole[begin:end])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    check_parts = open_image(tmp_path / f"a.{suffix}", 2, in_parts=True)
    assert np.array_equal(check_parts.pixels(), whole)
    with pytest.raises(UserError, match="which Pillow refuses"):
        open_image(tmp_path / f"a.{suffix}", 2)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "gif", "tif", "png"])
def test_grey_and_colours_of_every_picture_format(tmp_path: Path, suffix: str):
    for pixels in (noise(H, W), noise(H, W, 3)):
        if suffix == "gif" and pixels.ndim == 3:
            continue
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
        expected = pixels if pixels.ndim == 3 else pixels[..., None]
        if suffix in ("webp", "gif") and pixels.ndim == 2:
            expected = expected.repeat(3, -1)  # these have no grey
        check(tmp_path / f"a.{suffix}", expected)


def test_a_file_with_a_wrong_suffix_is_read_by_its_content(tmp_path: Path):
    pixels = noise(H, W, 3)
    Image.fromarray(pixels).save(tmp_path / "a", "PNG")
    (tmp_path / "a").rename(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.png", pixels, photometric="rgb")
    check(tmp_path / "a.tif", pixels)
    check(tmp_path / "b.png", pixels)


def test_an_animation_is_refused(tmp_path: Path):
    frames = [Image.fromarray(noise(9, 9, seed=seed)) for seed in range(3)]
    for suffix in ("gif", "webp", "png"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match="an animation of 3 frames"):
            open_image(tmp_path / f"a.{suffix}", 2)


@pytest.mark.parametrize("dtype", [*DTYPES, "bool", ">u2", ">f4"])
def test_npy_with_its_channels_last_first_or_absent(tmp_path: Path, dtype: str):
    for channels in (1, 3, 5):
        pixels = noise(H, W, channels, below=2) * np.uint8(255) if dtype == "bool" else values(channels, dtype)
        stored = pixels > 0 if dtype == "bool" else pixels  # black and white, as in a bilevel PNG
        np.save(tmp_path / "a.npy", stored)
        check(tmp_path / "a.npy", pixels)
        np.save(tmp_path / "b.npy", np.moveaxis(stored, -1, 0))
        native = pixels.dtype.newbyteorder("=")
        expected = pixels.astype(native if native in (np.uint8, np.uint16) else np.float32)
        for known in ({"size": (H, W)}, {"channels": channels}):
            reader = open_image(tmp_path / "b.npy", 2, **known)
            assert reader.channels == channels
            assert np.array_equal(reader.pixels(), expected) and np.array_equal(reader.rows(4, 9), expected[4:9])
    np.save(tmp_path / "c.npy", stored[..., 0])
    check(tmp_path / "c.npy", pixels[..., :1])


def test_channels_are_last_where_both_readings_fit(tmp_path: Path):
    cube = noise(5, 5, 5)
    np.save(tmp_path / "a.npy", cube)
    assert np.array_equal(open_image(tmp_path / "a.npy", 2, size=(5, 5)).pixels(), cube)


@needs_volumes
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 1), (9, 8, 7, 2), (9, 8, 1, 2), (9, 8, 7, 1)])
def test_nifti(tmp_path: Path, shape: tuple[int, ...], suffix: str, dtype: str):
    voxels = noise(*shape, below=200).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"a{suffix}")
    dims = 2 if shape[2] == 1 else 3
    expected = voxels.reshape(*(n for n in shape[:3] if n > 1), -1)
    reader = open_image(tmp_path / f"a{suffix}", dims)
    assert np.array_equal(reader.pixels(), expected)
    assert np.array_equal(reader.rows(2, 5), expected[2:5])


@needs_volumes
@settings(max_examples=40, deadline=None)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_a_mask_is_read_on_the_grid_of_its_image(tmp_path_factory, order: list[int], flips: tuple[bool, ...]):
    """Every orientation of a mask gives the labels of the voxels at the same positions in the patient."""
    folder = tmp_path_factory.mktemp("nifti")
    labels = noise(5, 6, 7, below=2)
    affine = np.array([[2.0, 0.1, 0, -30], [-0.1, 2.5, 0, 12], [0, 0, 4, 7], [0, 0, 0, 1]])  # oblique
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.float32), affine), folder / "image.nii")
    image = nibabel.Nifti1Image(labels, affine)
    orientation = [[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)]
    nibabel.save(image.as_reoriented(np.array(orientation)), folder / "mask.nii")
    pixels, target = FilePair(folder / "image.nii", folder / "mask.nii", LabelMap(None, CLASSES))()
    assert np.array_equal(target, labels) and np.array_equal(pixels[..., 0], labels)


@needs_volumes
def test_a_mask_on_another_grid_is_refused(tmp_path: Path):
    labels = noise(5, 6, 7, below=2)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "image.nii")
    for number, affine in enumerate([np.diag([2.0, 1, 1, 1]), np.eye(4) + np.eye(4, k=3), np.diag([-1.0, 1, 1, 1])]):
        nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / f"{number}.nii")
        with pytest.raises(UserError) as error:
            FilePair(tmp_path / "image.nii", tmp_path / f"{number}.nii", LabelMap(None, CLASSES))()
        sentence(error, f"{number}.nii: its affine places 5 x 6 x 7 voxels", "image.nii", "resample the mask")


@needs_volumes
def test_a_slice_and_its_mask_are_a_2_d_image(tmp_path: Path):
    labels = noise(6, 5, 1, below=2)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / "image.nii")
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 5
    nibabel.save(nibabel.Nifti1Image(labels[::-1], mirrored), tmp_path / "mask.nii")
    pixels, target = FilePair(tmp_path / "image.nii", tmp_path / "mask.nii", LabelMap(None, CLASSES))()
    assert np.array_equal(target, labels[..., 0]) and np.array_equal(pixels, labels)


def test_no_data_is_nan(tmp_path: Path):
    pixels = noise(9, 8, 3, below=200, dtype="uint8") + np.uint8(1)
    pixels[0], pixels[1, :, 0] = 0, 0
    expected = pixels.astype(np.float32)
    expected[0] = np.nan  # 0 in one channel alone is a colour
    np.save(tmp_path / "a.npy", pixels)
    check(tmp_path / "a.npy", expected, nodata=0.0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(42113, 2, 0, "0", True)])
    check(tmp_path / "a.tif", expected)
    assert open_image(tmp_path / "a.tif", 2).rows(2, 5).dtype == np.uint8


NODATA = {
    "float32": "-3.4028234663852886e+38",
    "float64": "-1.7976931348623157e+308",
    "int16": "-9999",
    "int32": "-2147483648",
    "uint16": "65535",
    "float16": "nan",
}


@pytest.mark.parametrize(("dtype", "number"), NODATA.items())
def test_the_value_that_a_geotiff_declares_is_nan(tmp_path: Path, dtype: str, number: str):
    pixels = noise(9, 8, below=200).astype(dtype)
    expected = pixels.astype(np.float32)[..., None]
    pixels[:2] = float(number) if dtype.startswith("float") else int(number)
    expected[:2] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, number, True)])
    check(tmp_path / "a.tif", expected)


def test_a_value_that_the_type_cannot_hold_is_nowhere(tmp_path: Path):
    pixels = noise(9, 8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, "-9999", True)])
    check(tmp_path / "a.tif", pixels[..., None])


def test_pixels_without_data_are_no_part_of_the_statistics_and_have_no_label(tmp_path: Path):
    folder_of(tmp_path, list("abcd"), size=(8, 8))
    values = np.linspace(1, 5, 64, dtype=np.float32).reshape(8, 8)
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = values.copy()
        pixels[:2] = np.nan if number % 2 else -9999
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack")
    data = scanned(tmp_path, nodata=-9999, splits={"train": 2, "val": 2})
    samples = data.samples["train"]
    mean, std = samples.statistics()
    assert mean == [pytest.approx(values[2:].mean())] and std == [pytest.approx(values[2:].std())]
    assert samples.range == (values[2, 0], 5)
    for image, target in map(samples.__getitem__, range(len(samples))):
        assert np.isnan(image[:2]).all() and (target[:2] == 255).all() and (target[2:] < 2).all()
    assert samples.item_counts.sum() == 2 * 6 * 8
    normalized = Normalize(mean, std, 2)(torch.tensor(image).movedim(-1, 0)[None])
    assert (normalized[:, :, :2] == 0).all() and normalized[:, :, 2:].mean().abs() < 1e-5


@pytest.mark.parametrize(
    "options", [{}, {"tile": [32, 32]}, {"tta": True}, {"tile": [32, 32], "tta": True, "batch": 3}]
)
def test_the_label_of_a_pixel_without_data_is_255(tmp_path: Path, options: dict[str, Any]):
    model = network(tmp_path)
    pixels = noise(70, 50, 3, dtype="float32")
    whole = model.predict(pixels, **options)
    pixels[10:30, 5:20] = np.nan
    pixels[0, 0, 0] = np.nan  # one channel is not the whole pixel
    labels, scores = model.predict(pixels, True, **options)
    missing = np.isnan(pixels).all(-1)
    assert (labels[missing] == 255).all() and np.isnan(scores[missing]).all()
    assert (labels[~missing] < 3).all() and not np.isnan(scores[~missing]).any()
    assert (labels == whole)[~missing].mean() > 0.8
    model.description["reading"] = {"nodata": -9999.0}
    filled = np.where(np.isnan(pixels), np.float32(-9999), pixels)
    assert np.array_equal(model.predict(filled, **options), labels)
    tifffile.imwrite(tmp_path / "a.tif", filled, photometric="rgb")
    predict_file(model, tmp_path / "a.tif", tmp_path / "a.png", PredictOptions(**options))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)


@needs_volumes
def test_voxels_of_another_size_or_direction_are_found_and_make_a_prediction_doubtful(tmp_path: Path):
    def write(name: str, affine: np.ndarray, seed: int) -> Path:
        path = tmp_path / name / f"{seed}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        values = noise(8, 8, 8, below=200 if name == "images" else 2, seed=seed).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        return path

    usual, coarse, mirrored = np.eye(4), np.diag([1.0, 1, 3, 1]), np.diag([-1.0, 1, 1, 1])
    for seed in range(6):
        for name in ("images", "masks"):
            write(name, usual, seed)
    data = scanned(tmp_path, splits={"train": 1, "val": 1})
    description = volume_grid(data.samples["train"])
    assert description == {"axes": "RAS", "spacing": [[1.0] * 3] * 2}
    model = network(tmp_path, 3, 1, **description)
    messages: list[str] = []
    for affine in (usual, coarse, mirrored):
        predict_file(
            model, write("other", affine, 0), tmp_path / "labels.nii.gz", PredictOptions(), warn=messages.append
        )
    assert len(messages) == 2 and "voxels are 1 x 1 x 3 mm" in messages[0] and "point to LAS" in messages[1]
    with pytest.raises(UserError, match="strict=true"):
        predict_file(model, write("other", coarse, 0), tmp_path / "no.nii.gz", PredictOptions(strict=True))
    assert not (tmp_path / "no.nii.gz").exists()
    for name in ("images", "masks"):
        write(name, coarse, 4)
        write(name, mirrored, 5)
    survey = survey_data(Folder(str(tmp_path), CLASSES, splits={"train": 1, "val": 1}))
    texts = {
        finding.text.split(":")[0]: finding.files for finding in collect_findings(survey) if "differ" in finding.text
    }
    assert texts == {
        "images differ in the directions of their axes": (str(tmp_path / "images" / "5.nii.gz"),),
        "images differ in the size of their voxels": (str(tmp_path / "images" / "4.nii.gz"),),
    }


@needs_volumes
def test_labels_of_a_slice_are_a_slice_in_the_same_place(tmp_path: Path):
    affine = np.diag([-1.0, 2, 3, 1])
    nibabel.save(nibabel.Nifti1Image(noise(40, 30, 1).astype(np.float32), affine), tmp_path / "a.nii.gz")
    (result,) = predict_files(network(tmp_path, 2, 1), [tmp_path / "a.nii.gz"], BatchOptions(tmp_path / "out", "x"))
    labels = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert result.state == DONE and labels.shape == (40, 30, 1) and np.array_equal(labels.affine, affine)


def test_a_value_far_from_all_others_has_to_be_declared(tmp_path: Path):
    folder_of(tmp_path, list("abcd"), size=(8, 8))
    for seed, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = noise(8, 8, below=1000, seed=seed).astype(np.float32) / 1000
        pixels[0, :2] = -9999
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack")
    options = {"splits": {"train": 2, "val": 2}}
    with pytest.raises(UserError) as error:
        scanned(tmp_path, **options)
    sentence(error, "3 more images", "the value -9999 is far", "data.source.nodata=-9999", "data.source.nodata=none")
    assert scanned(tmp_path, nodata=-9999, **options).samples["train"].range[0] >= 0
    assert scanned(tmp_path, nodata="none", **options).samples["train"].range[0] == -9999
    (finding,) = [
        one for one in collect_findings(survey_data(Folder(str(tmp_path), CLASSES, **options))) if "far" in one.text
    ]
    assert finding.kind == "error" and len(finding.files) == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-9999] + [0.1, 0.5, 0.9] * 20, -9999),
        ([65535] * 9 + [100, 900, 3000] * 20, 65535),
        ([-3.4e38] * 9 + [-5.0, 3.0, 8.0] * 20, -3.4e38),
        ([0.0] * 30 + [1000.0, 1005.0, 1010.0] * 20, None),  # outside of an object
        ([0.0, 1.0] * 20, None),
        ([-1024.0] * 20 + [0.0, 500.0, 3000.0] * 20, None),  # CT
        ([65535] + [100, 900, 3000] * 60, None),  # a hot pixel
        (list(range(-50, 50)), None),
    ],
)
def test_values_that_probably_mean_no_data(values: list[float], expected: float | None):
    dtype = np.float32 if any(isinstance(value, float) for value in values) or min(values) < 0 else np.uint16
    image = np.array(values, dtype)[:, None]
    found = image_range(image)
    assert (found.isolated if found.is_far else None) == (None if expected is None else np.float32(expected))


@needs_codecs
@pytest.mark.parametrize("bits", [2, 4, 12])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_of_few_bits(tmp_path: Path, bits: int, photometric: str):
    pixels = noise(H, W, below=2**bits, dtype="uint8" if bits < 8 else "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, bitspersample=bits, metadata=None)
    check(tmp_path / "a.tif", (pixels if photometric == "minisblack" else 2**bits - 1 - pixels)[..., None])


@pytest.mark.parametrize("factor", [1, 257])
def test_a_colour_map_of_8_or_16_bits_and_its_index_without_data(tmp_path: Path, factor: int):
    indices, colors = noise(H, W), noise(3, 256, dtype="uint16")
    options = {"photometric": "palette", "colormap": colors * np.uint16(factor), "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", indices, **options)
    check(tmp_path / "a.tif", colors.T[indices].astype(np.uint8))
    tifffile.imwrite(tmp_path / "b.tif", indices, **options, extratags=[(42113, 2, 0, "7", True)])
    check(tmp_path / "b.tif", np.where((indices == 7)[..., None], np.nan, colors.T[indices].astype(np.float32)))


@pytest.mark.parametrize("text", ["-3.40282e+38", "-3.4e+38", "-3.40282346638529e+38"])
def test_a_rounded_declaration_of_no_data(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture):
    pixels = noise(9, 8).astype(np.float32)
    expected = pixels[..., None].copy()
    pixels[:2], expected[:2] = np.finfo(np.float32).min, np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extratags=[(42113, 2, 0, text, True)])
    caplog.clear()
    check(tmp_path / "a.tif", expected)
    assert caplog.text == ""


@pytest.mark.parametrize("text", ["7 7 7", "7,0", " 7 \0"])
def test_a_declaration_of_no_data_is_the_number_that_it_begins_with(text: str):
    assert parse_nodata(text) == 7


def test_rows_of_pixels_as_pages_are_an_image(tmp_path: Path):
    """What tifffile.imwrite(path, array) writes for an array (H, W, 5) without further arguments."""
    pixels = noise(H, W, 5)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    for known in ({"size": (H, W)}, {"channels": 5}):
        assert np.array_equal(open_image(tmp_path / "a.tif", 2, **known).pixels(), pixels)
    with pytest.raises(UserError, match="37 x 29 x 5"):
        open_image(tmp_path / "a.tif", 2, channels=3)


def test_a_file_of_a_divided_ome_stack_is_read_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Two files of two slices, each describing both; the second is another image, and the third is missing."""
    planes = "".join(
        f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" Type="uint8" SizeX="{W}" SizeY="{H}" '
        f'SizeZ="2" SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="2"><UUID FileName="{i}.ome.tif">urn:uuid:{i}'
        "</UUID></TiffData></Pixels></Image>"
        for i in range(3)
    )
    for i in range(2):
        text = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">{planes}</OME>'
        pixels = noise(2, H, W, seed=i)
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", pixels, photometric="minisblack", description=text, metadata=None)
    for i in range(2):
        assert np.array_equal(open_image(tmp_path / f"{i}.ome.tif", 3).pixels(), noise(2, H, W, seed=i)[..., None])
    assert caplog.text == ""


@needs_volumes
@pytest.mark.parametrize("fault", ["no affine", "two affines"])
def test_a_flip_by_an_uncertain_affine_is_refused(tmp_path: Path, fault: str):
    labels = noise(5, 6, 7, below=2)
    centred = np.eye(4)
    centred[:3, 3] = -2, -2.5, -3
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = 2, -2.5, -3
    image, mask = nibabel.Nifti1Image(labels.astype(np.float32), centred), nibabel.Nifti1Image(labels, mirrored)
    image.set_sform(centred, 1)
    image.set_qform(mirrored if fault == "two affines" else centred, 1)
    for header in [mask.header] * (fault == "no affine"):
        header["sform_code"] = header["qform_code"] = 0
    nibabel.save(image, tmp_path / "image.nii")
    nibabel.save(mask, tmp_path / "mask.nii")
    with pytest.raises(UserError) as error:
        FilePair(tmp_path / "image.nii", tmp_path / "mask.nii", LabelMap(None, CLASSES))()
    found = "mask.nii has no affine" if fault == "no affine" else "image.nii has an sform and a qform that differ"
    sentence(error, "mask.nii: its axes are flipped or swapped", found, "save both files with one affine")


@needs_volumes
def test_labels_of_a_nifti_mask_with_a_scale_factor_are_integers(tmp_path: Path):
    """nibabel scales floats to the range of an integer type: 1 is read as 1.0000000591."""
    labels = noise(5, 6, 7, below=2)
    mask = nibabel.Nifti1Image(labels.astype(np.float32), np.eye(4))
    mask.header.set_data_dtype(np.uint8)
    nibabel.save(mask, tmp_path / "mask.nii")
    assert not np.array_equal(nibabel.load(tmp_path / "mask.nii").get_fdata(), labels)
    assert np.array_equal(LabelMap(None, CLASSES).read(tmp_path / "mask.nii"), labels)


@needs_volumes
def test_a_nifti_file_of_two_axes_is_an_image(tmp_path: Path):
    labels = noise(6, 5, below=2)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / "image.nii")
    for name, shape in (("a.nii", (6, 5)), ("b.nii", (6, 5, 1))):
        nibabel.save(nibabel.Nifti1Image(labels.reshape(shape), np.eye(4)), tmp_path / name)
        pixels, target = FilePair(tmp_path / "image.nii", tmp_path / name, LabelMap(None, CLASSES))()
        assert np.array_equal(target, labels) and np.array_equal(pixels[..., 0], labels)


def test_nan_in_a_mask_is_named_once_and_can_be_ignored(tmp_path: Path):
    labels = noise(6, 5, below=2).astype(np.float32)
    labels[0] = np.nan
    np.save(tmp_path / "mask.npy", labels)
    with pytest.raises(UserError) as error:
        LabelMap(None, CLASSES).read(tmp_path / "mask.npy")
    sentence(error, "label nan is outside the 2 classes")
    values = {0: "background", 1: "cell", float("nan"): "ignore"}
    read = LabelMap(values, CLASSES).read(tmp_path / "mask.npy")
    assert (read[0] == 255).all() and np.array_equal(read[1:], labels[1:])


WRONG_VALUES: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], str]] = {
    "two types": (lambda image, i: image if i % 2 else image.astype(np.uint16) * 257, "images differ in type"),
    "two ranges": (lambda image, i: image.astype(np.float32) / (255 if i % 2 else 1), "the maxima of float images"),
    "two depths": (lambda image, i: image.astype(np.uint16) * (1 if i % 2 else 257), "the maxima of uint16 images"),
    "float nodata": (lambda image, i: with_border(image / 255, -9999), "add data.source.nodata=-9999"),
    "float32": (lambda image, i: with_border(image / 255, -3.4028235e38), "data.source.nodata=-3.40282347e+38"),
    "int16": (lambda image, i: with_border(image.astype(np.int16) * 10, -32768), "data.source.nodata=-32768"),
    "uint16": (lambda image, i: with_border(image.astype(np.uint16), 65535), "data.source.nodata=65535"),
    "uint32": (lambda image, i: image.astype(np.uint32) + np.uint32(3 * 10**9), "less than float32 resolves"),
    "float64": (lambda image, i: image / 1000 + 1.7e9, "less than float32 resolves"),
}


def with_border(image: np.ndarray, value: float) -> np.ndarray:
    image = image.astype(np.float32) if image.dtype == np.float64 else image.copy()
    image[:3] = value
    return image


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_values_that_cannot_be_right_are_warned_of_by_training_and_check(tmp_path: Path, kind: str):
    change, message = WRONG_VALUES[kind]
    folder_of(tmp_path, list("abcdef"))
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        np.save(path.with_suffix(".npy"), change(noise(12, 10, 3, seed=number), number))
    splits = {"splits": {"train": 2, "val": 1}}
    findings = collect_findings(survey_data(Folder(str(tmp_path), CLASSES, **splits)))
    assert [finding.text for finding in findings if message in finding.text]
    if "nodata=" not in message:
        (warning,) = data_warnings(scanned(tmp_path, **splits))
        assert message in warning
        return
    with pytest.raises(UserError) as error:
        scanned(tmp_path, **splits)
    sentence(error, message)
    remedied = scanned(tmp_path, nodata=float(message.partition("nodata=")[2]), **splits)
    assert list(data_warnings(remedied)) == [] and remedied.samples["train"].num_missing == 4 * 30


def test_ordinary_values_are_not_warned_of(tmp_path: Path):
    folder_of(tmp_path, list("abcdef"))
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        image = noise(12, 10, 3, seed=number).astype(np.float32) * (1 + number / 5)
        image[:3] = 0  # the background of a scan
        image[5, 5] = 400
        np.save(path.with_suffix(".npy"), image)
    assert list(data_warnings(scanned(tmp_path, splits={"train": 2, "val": 1}))) == []


def test_training_warns_of_an_exif_orientation_that_the_mask_lacks(tmp_path: Path):
    folder_of(tmp_path, list("abcd"))
    exif = Image.Exif()
    exif[0x112] = 3
    with Image.open(tmp_path / "images" / "b.png") as image:
        image.convert("RGB").save(tmp_path / "images" / "b.jpg", exif=exif)
    (tmp_path / "images" / "b.png").unlink()
    (warning,) = data_warnings(scanned(tmp_path, splits={"train": 2, "val": 2}))
    assert "b.jpg: an EXIF orientation that the mask does not have" in warning


def test_a_value_that_the_training_images_declare_is_no_data_in_images_that_do_not(tmp_path: Path):
    folder_of(tmp_path, list("abcdef"), size=(16, 16))
    tag = [(42113, 2, 0, "0", True)]
    for seed, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.unlink()
        pixels = noise(16, 16, 3, below=900, dtype="uint16", seed=seed) + np.uint16(100)
        pixels[:4] = 0
        tifffile.imwrite(
            path.with_suffix(".tif"), pixels, photometric="rgb", extratags=tag if path.stem != "f" else None
        )
    source = Folder(str(tmp_path), CLASSES, splits={"train": 5, "val": 1})
    (text,) = data_warnings(scanned(tmp_path, splits={"train": 5, "val": 1}))
    assert "declare that 0 is no data, the others do not" in text and "data.source.nodata=0" in text
    data = scanned(tmp_path, splits={"train": 5, "val": 1})
    assert declared_nodata(data.samples["train"])[0] == 0 and str(data.samples["train"].dtype) == "uint16"
    facts = [image.dtype for _, image in survey_data(source).images]
    assert facts == ["uint16"] * 6, "no data makes no file a float"
    run = config(
        "data=folder", f"data.root={tmp_path}", "data.source.classes=[background,cell]", "data.crop.picture=16",
        "data.batch_size=2", "model.depth=1", "model.width=4",
    )  # fmt: skip
    module = build_data(run)
    module.scan()
    assert checkpoint_metadata(run, module)["reading"]["nodata"] == 0
