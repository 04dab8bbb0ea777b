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

from unet.io.atomic import atomic_write
from unet.io.image_formats import NIFTI, Array, name_parts

WriteBand = Callable[[Array], object]
"""Writes the next band of rows."""
ZLIB_LEVEL = 3
"""Compared to the default 6, files of labels are a third larger and take a third of the time."""


class PngStreamWriter:
    """A writer of bands of labels (rows, W) as an 8-bit palette PNG of any size.

    Pillow requires the complete image in memory. Source: the PNG specification, https://www.w3.org/TR/png-3.
    """

    def __init__(self, file: IO[bytes], size: Sequence[int], colors: Sequence[Sequence[int]]):
        self.file, self.compressor = file, zlib.compressobj(ZLIB_LEVEL)
        file.write(b"\x89PNG\r\n\x1a\n")
        height, width = size
        self.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        self.chunk(b"PLTE", bytes(value for color in colors for value in color))

    def chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    def write(self, band: Array) -> None:
        rows = np.pad(band.astype(np.uint8), ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
        if data := self.compressor.compress(rows.tobytes()):
            self.chunk(b"IDAT", data)

    def close(self) -> None:
        self.chunk(b"IDAT", self.compressor.flush())
        self.chunk(b"IEND", b"")


def label_name(path: Path, spatial_dims: int) -> str:
    """Return the file name of the labels of an image file."""
    stem, suffix = name_parts(path)
    return stem + (".png" if spatial_dims == 2 else suffix)


@contextmanager
def open_label_writer(
    path: Path, image: Path, size: Sequence[int], colors: Sequence[Sequence[int]]
) -> Iterator[WriteBand]:
    """Open a writer of labels (rows, *S[1:]) by suffix: PNG, .npy, NIfTI in the space of ``image``, or TIFF."""
    suffix = name_parts(path)[1]
    if suffix == ".npy":
        with open_npy_writer(path, size, "uint8") as write:
            yield write
        return
    with atomic_write(path) as file:
        if suffix == ".png":
            writer = PngStreamWriter(file, size, colors)
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
    data = nibabel.Nifti1Image(labels, source.affine, header).to_bytes()
    file.write(gzip.compress(data, 6, mtime=0) if compressed else data)


def save_tiff(file: IO[bytes], labels: Array, colors: Sequence[Sequence[int]]) -> None:
    """Write the slices of a volume as TIFF pages with a colour map of the classes."""
    table = np.zeros((3, 256), np.uint16)
    table[:, : len(colors)] = np.array(colors, np.uint16).T * 257
    tifffile.imwrite(file, labels, photometric="palette", colormap=table, compression="zlib", metadata=None)
