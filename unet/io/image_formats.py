"""Read image files: 2-D images with Pillow, arrays from .npy, volumes from NIfTI or a multi-page TIFF."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from unet.errors import UserError

Array = np.ndarray

PILLOW_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
NIFTI = frozenset({".nii", ".nii.gz"})
SUFFIXES = PILLOW_SUFFIXES | NIFTI | {".npy"}

DISPLAY_MODES = {"1": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
"""Pillow modes whose stored values are not the displayed ones, and the mode to convert to."""

# Pillow warns from half of the size on that it refuses; such an image is read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def name_parts(path: Path) -> tuple[str, str]:
    """Return stem and lower-case suffix of a file name: ``a.b.nii.gz`` -> ``a.b``, ``.nii.gz``."""
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.stem.lower().endswith(".nii"):
        return path.stem[: -len(".nii")], ".nii.gz"
    return path.stem, suffix


def read_with_pillow(path: Path, mode: Callable[[str], str] = str) -> tuple[Array, int]:
    """Return the pixels of an image file and the number of their spatial axes.

    (H, W) or (H, W, C) and 2; of a TIFF of several pages (D, H, W) or (D, H, W, C) and 3. ``mode`` maps the stored
    Pillow mode to the one to convert to; by default the stored mode is kept.
    """
    # Pillow does not close every file.
    with errors_of_reading(path, "an image"), path.open("rb") as file, Image.open(file) as image:
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        frames = []
        for page in range(pages):
            image.seek(page)
            target = mode(image.mode)
            # Pillow warns where it converts another image with transparency.
            frame = image.convert("RGBA") if target != image.mode and "transparency" in image.info else image
            frames.append(np.asarray(frame if target == frame.mode else frame.convert(target)))
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(
            f"{path}: {pages} pages of different sizes or kinds, expected the slices of one volume; divide it"
        )
    return (frames[0], 2) if pages == 1 else (np.stack(frames), 3)


@contextmanager
def errors_of_reading(path: Path, kind: str, advice: str = "replace or remove the file") -> Iterator[None]:
    """Raise UserError where a file cannot be read as ``kind``."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: {'a broken link' if path.is_symlink() else 'no such file'}") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow refuses as a decompression "
            f"bomb; divide the image into smaller ones"
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


def read_array(path: Path) -> Array:
    """Return the stored values of an array file, .npy or NIfTI."""
    if name_parts(path)[1] != ".npy":
        return read_nifti(path)
    with errors_of_reading(path, "an array of numbers", "save it again with numpy.save"), path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return check_numeric(array, path)


def read_nifti(path: Path) -> Array:
    """Return the voxels of a NIfTI file, (X, Y, Z) or (X, Y, Z, C), scaled by its header."""
    try:
        import nibabel
    except ImportError:
        raise UserError(f"{path}: reading NIfTI needs nibabel; run: pip install -e '.[volumes]'") from None
    with errors_of_reading(path, "NIfTI"):
        array = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    return check_numeric(array, path)


def check_numeric(array: Array, path: Path) -> Array:
    """Return the array; raise UserError unless it holds real numbers and has an axis."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.ndim == 0:
        dtype = getattr(array, "dtype", type(array).__name__)
        raise UserError(f"{path}: an array of {dtype}, expected one of real numbers with at least one axis")
    return array


def image_mode(path: Path, file_mode: str, mode: str | None) -> str:
    """Return the Pillow mode to read an image in, from the mode in the file and the configured one."""
    if mode is None:
        return DISPLAY_MODES.get(file_mode, file_mode)
    if file_mode.startswith(("I", "F")) and file_mode != mode:  # I;16, I;16B, I, F
        raise UserError(
            f"{path}: more than 8 bits a channel (Pillow's {file_mode}), which data.source.mode={mode} would truncate; "
            f"leave the mode out, or convert the file"
        )
    return mode


def read_image(path: Path, mode: str | None = None, spatial_dims: int | None = None) -> Array:
    """Return an image file as (*S, C), uint8, uint16 or float32; a palette image in its colours.

    A 2-D image is converted to the Pillow mode, such as ``L`` or ``RGB``. ``spatial_dims`` are the axes of the mask; an
    array may have one axis more, its channels.
    """
    if name_parts(path)[1] in PILLOW_SUFFIXES:
        pixels, axes = read_with_pillow(path, lambda file_mode: image_mode(path, file_mode, mode))
    elif mode is not None:
        raise UserError(f"{path}: data.source.mode={mode} does not convert arrays; leave it out")
    else:
        pixels, axes = read_array(path), spatial_dims
    axes = pixels.ndim if axes is None else axes
    if spatial_dims not in (None, axes) or pixels.ndim not in (axes, axes + 1):
        shape = " x ".join(map(str, pixels.shape))
        raise UserError(
            f"{path}: {shape}, but its mask has {spatial_dims} axes; expected as many, or one more for channels, last"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        try:
            with np.errstate(over="raise"):
                pixels = pixels.astype(np.float32)  # OpenCV, which augments, supports neither bool nor int32
        except FloatingPointError:
            raise UserError(f"{path}: values beyond those of float32 (3.4e38); rescale them") from None
    return pixels[..., None] if pixels.ndim == axes else pixels
