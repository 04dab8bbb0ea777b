"""What the headers of the training images say: axes and voxels of NIfTI files, GeoTIFF's value for no data."""

from typing import Any

from unet.data.files import FilePair
from unet.data.samples import Samples, evenly_spaced
from unet.io.arrays import load_nifti, voxel_grid
from unet.io.image_formats import NIFTI, TIFF, name_parts
from unet.io.image_reader import open_stored


def volume_grid(samples: Samples, most: int = 64) -> dict[str, Any]:
    """Return the part of a checkpoint's description about NIfTI images; empty for other images.

    ``axes`` has the directions of the axes, such as ``RAS``, None if they differ; ``spacing`` the smallest and the
    largest size of a voxel along each axis, in mm.
    """
    items = [samples.items[index] for index in evenly_spaced(len(samples), most)]
    files = [item.read.image for item in items if isinstance(item.read, FilePair)]
    grids = [voxel_grid(load_nifti(file).affine) for file in files if name_parts(file)[1] in NIFTI]
    if not grids:
        return {}
    spacings = [spacing for _, spacing in grids]
    axes = {axes for axes, _ in grids}
    return {
        "axes": axes.pop() if len(axes) == 1 else None,
        "spacing": [list(map(min, zip(*spacings, strict=True))), list(map(max, zip(*spacings, strict=True)))],
    }


def declared_nodata(samples: Samples, most: int = 64) -> tuple[float | None, int, int]:
    """Return the value that GeoTIFFs declare to be no data, None unless there is one, and how many of how many do."""
    items = [samples.items[index] for index in evenly_spaced(len(samples), most)]
    files = [item.read.image for item in items if isinstance(item.read, FilePair)]
    values = [open_stored(file).nodata for file in files if name_parts(file)[1] in TIFF]
    declared = {value for value in values if value is not None}
    value = declared.pop() if len(declared) == 1 else None
    return value, sum(found is not None for found in values), len(files)
