"""The supported image formats, the content of a file before any conversion, and the errors of reading one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from unet.errors import UserError
from unet.network.geometry import Window

Array = np.ndarray

TIFF = frozenset({".tif", ".tiff"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"})
"""Suffixes of formats that always hold one 2-D image."""
NIFTI = frozenset({".nii", ".nii.gz"})
SUFFIXES = TIFF | PICTURES | NIFTI | {".npy"}

INSTALL_CODECS = "pip install 'unet-resampling-lab[images]' (or -e '.[images]' in a clone)"
"""The command that installs the optional packages imagecodecs and pyvips."""


@dataclass
class StoredImage:
    """The content of an image or mask file as stored, read when it is needed.

    Attributes:
        shape: (*S), or (*S, C) with channels.
        spatial_dims: the number of spatial axes S; None for an array whose file does not tell.
        read: window -> its values, of any real data type.
        format: name of the format for a report, such as ``PNG RGB``.
        dtype: data type of the displayed values.
        palette: (256, C) uint8, the displayed value of each stored index; None: the stored values are the displayed.
        orientation: the orientation that the file asks a viewer to apply, 1 to 8 as in EXIF; it is not applied here.
        nodata: the value that the file declares to be no data.
        valid: window -> bool (*window), False where GDAL's mask in a TIFF says that there is no data.
        affine: (4, 4), voxel index to position in millimetres, of a NIfTI file.
        in_parts: whether ``read`` reads no more of the file than a window needs.
    """

    path: Path
    shape: tuple[int, ...]
    spatial_dims: int | None
    read: Callable[[Window], Array]
    format: str
    dtype: np.dtype
    palette: Array | None = None
    orientation: int = 1
    nodata: float | None = None
    valid: Callable[[Window], Array] | None = None
    affine: Array | None = None
    in_parts: bool = False

    def pixels(self, window: Window = ()) -> Array:
        """Return the stored values of a window, as a mask needs them; by default all."""
        with errors_of_reading(self.path, "an image"):
            return self.read(window or (slice(0, self.shape[0]),))


def name_parts(path: Path) -> tuple[str, str]:
    """Return stem and lower-case suffix of a file name: ``a.b.nii.gz`` -> ``a.b``, ``.nii.gz``."""
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.stem.lower().endswith(".nii"):
        return path.stem[: -len(".nii")], ".nii.gz"
    return path.stem, suffix


@contextmanager
def errors_of_reading(path: Path, kind: str, advice: str = "replace or remove the file") -> Iterator[None]:
    """Raise UserError where a file cannot be read as ``kind``."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: {'a broken link' if path.is_symlink() else 'no such file'}") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow refuses as a decompression "
            f"bomb; run: {INSTALL_CODECS}, with which PNG and JPEG images are read in parts, or save it as TIFF"
        ) from None
    except Exception as error:  # a decoder of a damaged file may raise anything
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif path.is_file() and path.stat().st_size == 0:
            reason = "the file is empty"
        elif isinstance(error, UnidentifiedImageError):
            reason = "it holds no image"
        else:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{path}: cannot be read as {kind} ({reason}); {advice}") from None


def require_numbers(dtype: np.dtype, ndim: int, path: Path) -> None:
    """Raise UserError unless a file holds an array of real numbers with at least one axis."""
    if dtype.kind not in "buif" or ndim == 0:
        raise UserError(f"{path}: an array of {dtype}, expected one of real numbers with at least one axis")
