"""Read array files: .npy, which is read in parts, and NIfTI."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError
from unet.io.image_formats import Array, StoredImage, errors_of_reading, name_parts, require_numbers
from unet.network.geometry import Window, times

MAX_SHIFT = 0.05
"""Largest distance, in voxels, between the grids of a mask and of its image that is due to rounding."""


def open_npy(path: Path) -> StoredImage:
    """Open an .npy file. Nothing in it is unpickled."""
    with errors_of_reading(path, "an array of numbers", "save it again with numpy.save"):
        array = map_npy(path)
        require_numbers(array.dtype, array.ndim, path)

    def read(window: Window) -> Array:
        return np.array(map_npy(path)[window])

    return StoredImage(path, array.shape, None, read, ".npy", array.dtype, in_parts=True)


def map_npy(path: Path) -> Array:
    """Map an .npy file into memory; every read opens and closes the file."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "empty" not in str(error):
            raise
        with path.open("rb") as file:  # an array without elements cannot be mapped
            return np.lib.format.read_array(file, allow_pickle=False)


def open_nifti(path: Path, grid: Path | None = None) -> StoredImage:
    """Open a NIfTI file, (X, Y, Z) or (X, Y, Z, C), scaled by its header; a slice (X, Y, 1) is an image (X, Y).

    Args:
        path: the file.
        grid: the NIfTI image on whose voxel grid a mask is returned: with its axes swapped and flipped.

    Raises:
        UserError: the file cannot be read, or the voxels of the mask are not those of the image.
    """
    image = load_nifti(path)
    from nibabel.volumeutils import apply_read_scaling

    # For each axis of the result the axis of the file, and whether it is flipped.
    axes = [(axis, False) for axis in range(3)] if grid is None else axes_to_grid(path, image, grid, load_nifti(grid))
    sizes = three_sizes(image) + image.shape[3:]
    axes += [(axis, False) for axis in range(3, len(sizes))]
    lengths = [sizes[axis] for axis, _ in axes]
    ndim = image.ndim if grid is None else len(sizes)
    kept = [axis for axis in range(ndim) if lengths[axis] != 1 or axis not in (2, 3)]  # one slice, one time
    in_parts = name_parts(path)[1] == ".nii"
    stored = image.dataobj.get_unscaled if in_parts else cache(image.dataobj.get_unscaled)  # the first maps the file

    def read(window: Window) -> Array:
        parts = [slice(0, length) for length in lengths]
        for axis, part in zip(kept, window, strict=False):
            parts[axis] = part
        own = [slice(0)] * len(sizes)
        for part, length, (axis, is_flipped) in zip(parts, lengths, axes, strict=True):
            own[axis] = slice(length - part.stop, length - part.start) if is_flipped else part
        with errors_of_reading(path, "NIfTI"):
            voxels = np.array(stored()[tuple(own[: image.ndim])])
            voxels = apply_read_scaling(voxels, *map(np.asanyarray, (image.dataobj.slope, image.dataobj.inter)))
        voxels = voxels.reshape([part.stop - part.start for part in own]).transpose([axis for axis, _ in axes])
        voxels = voxels[tuple(slice(None, None, -1 if is_flipped else 1) for _, is_flipped in axes)]
        return voxels.reshape([voxels.shape[axis] for axis in kept])

    affine = np.asarray(image.affine)
    dtype = np.dtype(image.dataobj.dtype if image.header.get_slope_inter()[0] in (None, 1) else np.float64)
    shape = tuple(lengths[axis] for axis in kept)
    return StoredImage(path, shape, None, read, "NIfTI", dtype, affine=affine, in_parts=in_parts)


def load_nifti(path: Path) -> Any:
    """Return nibabel's image of a file, whose voxels are not read yet."""
    try:
        import nibabel
    except ImportError:
        raise UserError(f"{path}: reading NIfTI needs nibabel; run: pip install -e '.[volumes]'") from None
    with errors_of_reading(path, "NIfTI"):
        image: Any = nibabel.load(path)  # type: ignore[attr-defined]
        require_numbers(image.get_data_dtype(), len(image.shape), path)
        return image


def voxel_grid(affine: Array) -> tuple[str, tuple[float, ...]]:
    """Return the directions of the axes of a NIfTI file, such as ``RAS``, and the size of its voxels in mm."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import aff2axcodes

    return "".join(map(str, aff2axcodes(affine))), tuple(float(size) for size in voxel_sizes(affine))


def three_sizes(image: Any) -> tuple[int, ...]:
    """Return the size of a NIfTI image along its three spatial axes, which a file may have fewer of."""
    return (*image.shape[:3], 1, 1, 1)[:3]


def axes_to_grid(path: Path, mask: Any, grid_path: Path, grid: Any) -> list[tuple[int, bool]]:
    """Return, for each axis of the image, the axis of the mask along it and whether that is flipped.

    Raises:
        UserError: the affines place the voxels of the two files at different positions.
    """
    sizes, grid_sizes = three_sizes(mask), three_sizes(grid)
    step = np.linalg.inv(grid.affine) @ mask.affine  # voxel of the mask -> voxel of the image
    order = np.abs(step[:3, :3]).argmax(1)
    flips = step[range(3), order] < 0
    exact = np.zeros((3, 4))
    exact[range(3), order] = np.where(flips, -1, 1)
    exact[:, 3] = np.where(flips, np.array(grid_sizes) - 1, 0)
    corners = np.array(np.meshgrid(*([0, n - 1] for n in sizes))).reshape(3, -1)
    shift = (step[:3] - exact) @ np.vstack([corners, np.ones(8)])
    same = sorted(order) == [0, 1, 2] and [sizes[axis] for axis in order] == list(grid_sizes)
    if not same or np.abs(shift).max() > MAX_SHIFT:
        described = [
            f"{times(size)} voxels from ({', '.join(f'{n:.4g}' for n in affine[:3, 3])}) mm along the axes "
            f"{' '.join(str(np.round(column, 3).tolist()) for column in affine[:3, :3].T)}"
            for size, affine in ((sizes, mask.affine), (grid_sizes, grid.affine))
        ]
        raise UserError(
            f"{path}: its affine places {described[0]}, that of its image {grid_path.name} {described[1]}; expected "
            f"the same voxels, up to flipped or swapped axes: resample the mask onto the image's grid, or, if the "
            f"voxels correspond and only the header is wrong, save the mask with the affine of the image"
        )
    if flips.any() or order.tolist() != [0, 1, 2]:
        for file, image in ((path, mask), (grid_path, grid)):
            if fault := fault_of_affine(image.header):
                raise UserError(
                    f"{path}: its axes are flipped or swapped against those of its image {grid_path.name}, but the "
                    f"header of {file.name} {fault}, so this is uncertain; save both files with one affine, as sform "
                    f"and as qform"
                )
    return [(int(axis), bool(flip)) for axis, flip in zip(order, flips, strict=True)]


def fault_of_affine(header: Any) -> str | None:
    """Return why the affine of a NIfTI header is uncertain: it has none, or two that differ; None if it is certain."""
    (sform, _), (qform, _) = header.get_sform(coded=True), header.get_qform(coded=True)
    if sform is None and qform is None:
        return "has no affine (sform and qform codes are 0)"
    if sform is not None and qform is not None and not np.allclose(sform, qform, atol=MAX_SHIFT):
        return "has an sform and a qform that differ"
    return None
