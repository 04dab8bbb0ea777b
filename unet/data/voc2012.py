"""PASCAL VOC 2012 segmentation: 2,913 labelled photographs, in the layout of torchvision's dataset."""

from pathlib import Path

from unet.data.download import ensure_downloaded
from unet.data.files import file_item, read_lines
from unet.data.label_map import LabelMap
from unet.data.source import Color, Item, Source
from unet.io.image_reader import ReadOptions

ARCHIVE = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
FOLDER = "VOCdevkit/VOC2012"


class Voc2012(Source):
    """Twenty kinds of objects and background; the borders of objects, 255, are ignored (Everingham et al. 2010).

    The labels of the official test split are not public. The official train split (1,464) is train; the images of the
    official val split (1,449) are alternately val (725) and test (724). Scores on this test split are therefore not
    comparable with those of the official server.

    Args:
        root: torchvision's root: the folder of ``VOCdevkit/VOC2012``.
        download: whether a missing data set (2 GB) may be downloaded.
    """

    classes = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    colors: tuple[Color, ...] = (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128),
        (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    )  # fmt: skip

    read_options = ReadOptions(mode="RGB")

    def __init__(self, root: str, download: bool = True):
        self.root, self.download = Path(root), download

    def load_splits(self) -> dict[str, list[Item]]:
        manual = f"download {ARCHIVE} and extract it in {self.root}, or set data.root=..."
        ensure_downloaded(self.root, [FOLDER], "VOCSegmentation", self.download, manual)
        train, val = self.official_split("train"), self.official_split("val")
        return {"train": train, "val": val[::2], "test": val[1::2]}

    def official_split(self, split: str) -> list[Item]:
        """Return the items of an official split."""
        folder = self.root / FOLDER
        labels = LabelMap({**dict(enumerate(self.classes)), 255: "ignore"}, self.classes)
        names = read_lines(folder / "ImageSets" / "Segmentation" / f"{split}.txt")
        images, masks = folder / "JPEGImages", folder / "SegmentationClass"
        return [file_item(images / f"{name}.jpg", masks / f"{name}.png", labels, self.read_options) for name in names]
