"""MODIS land cover for NASA's Blue Marble: forests, savannas, fields, deserts and ice from space."""

from pathlib import Path

import numpy as np
from PIL import Image

from unet.data.blue_marble import LAKE, LAND, BlueMarble
from unet.data.source import Array, Color
from unet.labels import IGNORE_INDEX

RASTER = Path(__file__).with_name("land_cover.png")
"""The IGBP class of every pixel (2115, 5400), written by scripts/maintain/land_cover.py."""
SPLIT_SEED = 96
"""The first with which a colour histogram is within 0.015 of its mean mIoU over 0 to 99, and within 1.4 standard
deviations of its mean IoU in every class, on val and on test."""
WATER = 0
IGBP = {
    "ocean": (WATER,),
    "lake": (),
    "forest": (1, 2, 3, 4, 5),  # evergreen and deciduous, needleleaf and broadleaf, mixed
    "savanna": (8, 9),  # with 30 to 60 %, and 10 to 30 % of trees
    "grassland": (6, 7, 10),  # with shrubland, which looks alike from space
    "cropland": (12, 14),
    "barren": (16,),
    "snow": (15,),
}
"""The IGBP classes of each class. Wetlands (11) and cities (13) are ignored: too few are larger than a pixel."""


class LandCover(BlueMarble):
    """The blocks of :class:`unet.data.blue_marble.BlueMarble` with eight classes of land cover (Friedl et al. 2010).

    Land cover is that of MODIS in 2019, ocean and lake are those of Blue Marble. Pixels that are water in one of the
    two and land in the other are ignored, as are the Caspian Sea, wetlands and cities. Blocks are assigned to splits so
    that each main land cover is equally frequent in each.

    Args:
        gamma: brightness v of 0 to 1 becomes ``v ** gamma``.
        split_seed: seeds the assignment of blocks to splits; it is not the run's seed.
    """

    classes = tuple(IGBP)
    colors: tuple[Color, ...] = (
        (20, 40, 90), (60, 190, 240), (0, 110, 50), (150, 190, 60), (220, 200, 110), (230, 120, 150), (190, 150, 110),
        (245, 245, 245),
    )  # fmt: skip

    def __init__(self, gamma: float = 1.0, split_seed: int = SPLIT_SEED):
        super().__init__(gamma, split_seed)

    def labels(self, water: Array) -> Array:
        """Return the land cover where MODIS and the target of ocean, land and lake (2115, 5400) agree on water."""
        label_of = np.full(256, IGNORE_INDEX, np.uint8)
        for label, codes in enumerate(IGBP.values()):
            label_of[list(codes)] = label
        with Image.open(RASTER) as raster:
            codes = np.asarray(raster)
        target = label_of[codes]
        target[(codes == WATER) & (water == LAKE)] = self.classes.index("lake")
        target[(codes == WATER) == (water == LAND)] = IGNORE_INDEX
        target[water == IGNORE_INDEX] = IGNORE_INDEX
        return target

    def stratum(self, labels: Array) -> tuple[int, int]:
        """Return the most frequent class besides ocean, and its pixels."""
        counts = np.bincount(labels[labels != IGNORE_INDEX], minlength=self.num_classes)[1:]
        return int(counts.argmax()), int(counts.max())
