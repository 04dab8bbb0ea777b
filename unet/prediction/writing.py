"""Write labels and probabilities in bands of rows; a file appears only once it is complete."""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile

from unet.errors import UserError, did_you_mean
from unet.io.atomic import atomic_write
from unet.io.image_formats import NIFTI, Array, name_parts
from unet.labels import IGNORE_INDEX
from unet.prediction.georeference import geo_tags, resolution

WriteBand = Callable[[Array], object]
"""Writes the next band of rows."""
LABEL_FORMATS = {
    "index": "8-bit grey PNG, whose values are the labels",
    "color": "palette PNG in the class colours, whose indices are the labels",
    "tiff": "TIFF in the class colours with the georeference of the image, whose indices are the labels",
}
"""The formats of the labels of 2-D images."""
GDAL_NODATA, ASCII = 42113, 2
ZLIB_LEVEL = 3
"""Compared to the default 6, files of labels are a third larger and take a third of the time."""
STRIP_BYTES = 2**18
"""Size of a decompressed strip of a TIFF."""


class PngStreamWriter:
    """A writer of bands of labels (rows, W) as an 8-bit PNG of any size, grey or with the palette ``colors``.

    Pillow requires the complete image in memory. Source: the PNG specification, https://www.w3.org/TR/png-3.
    """

    def __init__(self, file: IO[bytes], size: Sequence[int], colors: Sequence[Sequence[int]] | None = None):
        self.file, self.compressor = file, zlib.compressobj(ZLIB_LEVEL)
        file.write(b"\x89PNG\r\n\x1a\n")
        height, width = size
        self.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0 if colors is None else 3, 0, 0, 0))
        if colors is not None:
            self.chunk(b"PLTE", palette(colors).tobytes())

    def chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    def write(self, band: Array) -> None:
        rows = np.pad(band.astype(np.uint8), ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
        if data := self.compressor.compress(rows.tobytes()):
            self.chunk(b"IDAT", data)

    def close(self) -> None:
        self.chunk(b"IDAT", self.compressor.flush())
        self.chunk(b"IEND", b"")


class TiffStreamWriter:
    """A writer of bands of labels (rows, W) as a palette TIFF, in the place on Earth of the image file ``source``.

    Its compressed strips are kept in memory until :meth:`close`.
    """

    def __init__(self, file: IO[bytes], size: Sequence[int], colors: Sequence[Sequence[int]], source: Path):
        self.file, self.size, self.colors, self.source = file, size, colors, source
        self.strip_rows = min(size[0], max(1, STRIP_BYTES // size[1]))
        self.pending, self.strips = np.empty((0, size[1]), np.uint8), []

    def write(self, band: Array) -> None:
        self.pending = np.concatenate([self.pending, band])
        while len(self.pending) >= self.strip_rows:
            self.add_strip()

    def add_strip(self) -> None:
        strip, self.pending = np.split(self.pending, [self.strip_rows])
        self.strips.append(zlib.compress(strip.astype(np.uint8).tobytes(), ZLIB_LEVEL))

    def close(self) -> None:
        if len(self.pending):
            self.add_strip()
        with tifffile.TiffWriter(self.file, bigtiff=sum(map(len, self.strips)) > 2**32 - 2**25) as tiff:
            tiff.write(
                iter(self.strips), shape=tuple(self.size), dtype=np.uint8, rowsperstrip=self.strip_rows,
                photometric="palette", colormap=color_map(self.colors), compression="zlib", metadata=None,
                extratags=[*geo_tags(self.source), (GDAL_NODATA, ASCII, 0, str(IGNORE_INDEX), True)],
                **resolution(self.source),
            )  # fmt: skip


def palette(colors: Sequence[Sequence[int]]) -> Array:
    """Return the colours (256, 3) of the values of a label file: the classes, black, and grey for no prediction."""
    table = np.zeros((256, 3), np.uint8)
    table[IGNORE_INDEX] = 128
    table[: len(colors)] = colors
    return table


def color_map(colors: Sequence[Sequence[int]]) -> Array:
    """Return the colour map (3, 256) of a TIFF, uint16."""
    return palette(colors).T.astype(np.uint16) * 257


def check_label_format(name: str) -> None:
    """Raise UserError unless ``name`` is one of :data:`LABEL_FORMATS`."""
    if name not in LABEL_FORMATS:
        suggestion = did_you_mean(str(name), LABEL_FORMATS)
        raise UserError(f"labels: unknown {name!r}{suggestion} (valid: {', '.join(LABEL_FORMATS)})")


def label_suffix(path: Path, spatial_dims: int, labels: str = "index") -> str:
    """Return the suffix of the labels of an image file; ``labels`` is one of :data:`LABEL_FORMATS`."""
    suffix = name_parts(path)[1]
    if spatial_dims != 2 or suffix in NIFTI:
        return suffix
    return ".tif" if labels == "tiff" else ".png"


@contextmanager
def open_label_writer(
    path: Path, image: Path, size: Sequence[int], colors: Sequence[Sequence[int]], labels: str = "index"
) -> Iterator[WriteBand]:
    """Open a writer of labels (rows, *S[1:]) by suffix: PNG, .npy, NIfTI in the space of ``image``, or TIFF."""
    suffix = name_parts(path)[1]
    if suffix == ".npy":
        with open_npy_writer(path, size, "uint8") as write:
            yield write
        return
    with atomic_write(path) as file:
        if len(size) == 2 and suffix in (".png", ".tif"):
            if suffix == ".png":
                writer = PngStreamWriter(file, size, colors if labels == "color" else None)
            else:
                writer = TiffStreamWriter(file, size, colors, image)
            yield writer.write
            writer.close()
            return
        bands: list[Array] = []
        yield bands.append
        if suffix in NIFTI:
            save_nifti(file, np.concatenate(bands), image, suffix == ".nii.gz")
        else:
            save_tiff(file, np.concatenate(bands), colors)


@contextmanager
def open_npy_writer(path: Path, shape: Sequence[int], dtype: str) -> Iterator[WriteBand]:
    """Open a writer of bands along the first axis as an .npy file of a known shape."""
    with atomic_write(path) as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda band: file.write(np.ascontiguousarray(band, dtype).tobytes())


def save_nifti(file: IO[bytes], labels: Array, image: Path, compressed: bool) -> None:
    """Write labels as NIfTI with the affine and the units of the image."""
    import nibabel

    source: Any = nibabel.load(image)  # type: ignore[attr-defined]
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    voxels = labels.reshape((*source.shape[:3], 1)[: max(3, labels.ndim)])  # a slice (X, Y, 1) was read as (X, Y)
    data = nibabel.Nifti1Image(voxels, source.affine, header).to_bytes()
    file.write(gzip.compress(data, 6, mtime=0) if compressed else data)


def save_tiff(file: IO[bytes], labels: Array, colors: Sequence[Sequence[int]]) -> None:
    """Write the slices of a volume as TIFF pages with a colour map of the classes."""
    arguments = {"photometric": "palette", "colormap": color_map(colors), "compression": "zlib"}
    tifffile.imwrite(file, labels, metadata=None, **arguments)
