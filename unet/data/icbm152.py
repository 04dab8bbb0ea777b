"""The MNI ICBM152 brain template with tissue labels, a volume of 1 mm voxels, from the package ``nilearn``."""

from functools import partial

import numpy as np

from unet.data.files import find_installed_file
from unet.data.source import Array, Color, Item, Source, in_memory_pair
from unet.io.arrays import open_nifti
from unet.labels import IGNORE_INDEX

INSTALL = "pip install -e '.[volumes]'"
FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
SLABS = {  # slices from back to front; 12 are skipped between two slabs
    "train": (slice(28, 60), slice(100, 132), slice(172, 204)),
    "val": (slice(72, 88),),
    "test": (slice(144, 160),),
}


class Icbm152(Source):
    """The symmetric T1 average of 152 heads without the skull (Fonov et al. 2011), labelled other, grey and white.

    A voxel has the class of the largest probability among grey matter, white matter and other (mostly the fluid in
    ventricles and sulci); outside the brain, where the T1 image is exactly 0, it is ignored.

    The left half is an exact mirror image of the right, so a split by hemisphere would test on training data. The
    splits are slabs from back to front: 32 slices train, 16 val, 32 train, 16 test, 32 train, with 12 skipped between
    any two. Labels 12 mm apart agree in 59 % of the brain, neighbours in 91 %, random voxels in 45 %.

    A volume is (back to front, top to bottom, left to right): its slices are upright coronal images.
    """

    classes = ("other", "grey", "white")
    colors: tuple[Color, ...] = ((70, 110, 190), (150, 150, 150), (245, 235, 215))
    spatial_dims = 3

    def load_splits(self) -> dict[str, list[Item]]:
        image, grey, white = (
            open_nifti(find_installed_file("nilearn", FILE.format(kind), INSTALL)).pixels()
            for kind in ("t1", "gm", "wm")
        )
        target = tissue_labels(image, grey, white)
        return {
            split: [
                Item(
                    f"ICBM152 slices {slab.start} to {slab.stop - 1}",
                    partial(in_memory_pair, *crop_to_brain(image, target, slab)),
                )
                for slab in slabs
            ]
            for split, slabs in SLABS.items()
        }

    def group_of(self, item: Item) -> str:
        return "head"


def tissue_labels(image: Array, grey: Array, white: Array) -> Array:
    """Return the labels of the largest of the probabilities, which are maps of 0 to 255; ``other`` wins ties."""
    other = 255 - grey.astype(np.int16) - white
    target = np.stack([other, grey, white]).argmax(0).astype(np.uint8)
    target[image == 0] = IGNORE_INDEX
    return target


def crop_to_brain(image: Array, target: Array, slab: slice) -> tuple[Array, Array]:
    """Crop a slab to its brain and make it upright: image (D, H, W, 1), target (D, H, W)."""
    image, target = image[:, slab], target[:, slab]
    box = tuple(slice(index.min(), index.max() + 1) for index in np.nonzero(image))
    image, target = (np.ascontiguousarray(volume[box].transpose(1, 2, 0)[:, ::-1]) for volume in (image, target))
    return image[..., None], target
