"""Every kind of file is read as the array that was written, whole and in parts, as an image and as a mask."""

import importlib.util
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from folders import CLASSES, noise, sentence
from PIL import Image
from written import H, W, check, values

from unet.data.label_map import LabelMap
from unet.errors import UserError
from unet.io.image_reader import ReadOptions, open_image

needs_codecs = pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is None, reason="imagecodecs is missing")


needs_vips = pytest.mark.skipif(importlib.util.find_spec("pyvips") is None, reason="pyvips is missing")


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


@needs_codecs
@pytest.mark.parametrize("bits", [2, 4, 12])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_of_few_bits(tmp_path: Path, bits: int, photometric: str):
    pixels = noise(H, W, below=2**bits, dtype="uint8" if bits < 8 else "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, bitspersample=bits, metadata=None)
    check(tmp_path / "a.tif", (pixels if photometric == "minisblack" else 2**bits - 1 - pixels)[..., None])


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
