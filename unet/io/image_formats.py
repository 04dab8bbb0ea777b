"""File formats: pictures through Pillow, arrays as .npy, volumes as NIfTI or as a TIFF of several pages."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from unet.errors import UserError

Array = np.ndarray

PILLOW_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
NIFTI = frozenset({".nii", ".nii.gz"})
SUFFIXES = PILLOW_SUFFIXES | NIFTI | {".npy"}

DISPLAY_MODES = {"1": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
"""Pillow's modes whose stored numbers are not what the picture shows, and the mode that is."""

# Pillow warns of an image from half the size on at which it refuses it. It is read all the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

DEEP = ("I", "F")
"""How Pillow's modes of more than 8 bits a channel begin: I;16, I;16B, I, F."""


def name_parts(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file name, the suffix in lower case: ``a.b.nii.gz`` gives ``a.b`` and ``.nii.gz``."""
    ending = path.suffix.lower()
    if ending == ".gz" and path.stem.lower().endswith(".nii"):
        return path.stem[: -len(".nii")], ".nii.gz"
    return path.stem, ending


def read_with_pillow(path: Path, mode: Callable[[str], str] = str) -> tuple[Array, int]:
    """The pixels of a picture file and how many of their axes are spatial; a palette image gives its indices.

    (H, W) or (H, W, C) and 2; of a TIFF of several pages (D, H, W) or (D, H, W, C) and 3.

    Args:
        path: the file.
        mode: the Pillow mode to convert to, from the stored one; by default none.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:  # closed too where Pillow leaves it open
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            frames = []
            for page in range(pages):
                if page:
                    image.seek(page)
                frames.append(converted(image, mode(image.mode)))
    except UserError:
        raise
    except FileNotFoundError:
        raise missing(path) from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow takes for a decompression "
            f"bomb; divide the image into smaller ones"
        ) from None
    except Exception as error:  # a decoder may fail in any way
        raise UserError(
            f"{path}: cannot be read as an image ({cause(error, path)}); replace the file or take it out"
        ) from None
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(
            f"{path}: {pages} pages of different sizes or kinds, expected the slices of one volume; divide it"
        )
    return (frames[0], 2) if pages == 1 else (np.stack(frames), 3)


def missing(path: Path) -> UserError:
    return UserError(f"{path}: {'a link to what is not there' if path.is_symlink() else 'no such file'}")


def cause(error: Exception, path: Path) -> str:
    """Why a library could not read a file, in a few words that do not name the file again."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is none of an image"
    told = str(error).strip()
    return told.splitlines()[0].rstrip(".") if told else type(error).__name__


def converted(image: Image.Image, wanted: str) -> Array:
    if wanted != image.mode and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow would warn about it
    return np.asarray(image if wanted == image.mode else image.convert(wanted))


def read_array(path: Path) -> Array:
    """An array file, .npy or NIfTI, as it is stored; which axes are spatial it does not say."""
    return read_npy(path) if name_parts(path)[1] == ".npy" else read_nifti(path)


def read_npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # a header that is damaged may fail in any way
        raise UserError(
            f"{path}: cannot be read as an array of numbers ({cause(error, path)}); save it anew with numpy.save"
        ) from None
    return numbers(array, path)


def read_nifti(path: Path) -> Array:
    """A NIfTI file's voxels, (X, Y, Z) or (X, Y, Z, C), scaled as its header says."""
    try:
        import nibabel
    except ImportError:
        raise UserError(f"{path}: reading NIfTI needs nibabel; run: pip install -e '.[volumes]'") from None
    try:
        array = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # as for a picture
        raise UserError(
            f"{path}: cannot be read as NIfTI ({cause(error, path)}); replace the file or take it out"
        ) from None
    return numbers(array, path)


def numbers(array: Array, path: Path) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.ndim == 0:
        kind = getattr(array, "dtype", type(array).__name__)
        raise UserError(f"{path}: an array of {kind}, expected one of real numbers with at least one axis")
    return array


def image_mode(path: Path, stored: str, mode: str | None) -> str:
    """The Pillow mode an image is read in; ``mode`` is the one asked for."""
    if mode is None:
        return DISPLAY_MODES.get(stored, stored)
    if stored.startswith(DEEP) and stored != mode:
        raise UserError(
            f"{path}: more than 8 bits a channel (Pillow's {stored}), which data.source.mode={mode} would cut off; "
            f"leave the mode out, or convert the file"
        )
    return mode


def read_image(path: Path, mode: str | None = None, spatial_dims: int | None = None) -> Array:
    """An image file as (*S, C), uint8, uint16 or float32; a palette image in its colours.

    Args:
        path: the file.
        mode: a Pillow mode, such as ``L`` or ``RGB``, to which every picture is converted; not for arrays.
        spatial_dims: axes of the mask. An array may have one axis more, its channels, and has none of them otherwise.
    """
    if name_parts(path)[1] in PILLOW_SUFFIXES:
        pixels, axes = read_with_pillow(path, lambda stored: image_mode(path, stored, mode))
    elif mode is not None:
        raise UserError(f"{path}: data.source.mode={mode} converts pictures, not arrays; leave it out")
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
                pixels = pixels.astype(np.float32)  # OpenCV, which augments, knows neither bool nor int32
        except FloatingPointError:
            raise UserError(f"{path}: values beyond those of float32 (3.4e38); rescale them") from None
    return pixels[..., None] if pixels.ndim == axes else pixels
