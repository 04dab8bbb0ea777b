"""ISBI 2012: membranes in electron microscopy, one stack of 512x512 slices of the Drosophila nerve cord."""

from pathlib import Path

from unet.data.files import pair_files, require_folders
from unet.data.label_map import LabelMap
from unet.data.source import Color, Item, Source
from unet.data.splits import check_split_seed

ADVICE = (
    "download https://github.com/zhixuhao/unet (folder data/membrane/train: image, label) and put both folders there, "
    "or set data.root=..."
)


class Isbi2012(Source):
    """Two classes in masks of 0 (membrane) and 255 (cell) (Cardona et al. 2010).

    Neighbouring slices are similar, so each split is a range of slices: the first 60 % train, the next 20 % val, the
    last 20 % test.

    Args:
        root: the folder with ``image/N.png`` and ``label/N.png`` for slice N.
        split_seed: rotates the splits by so many times the size of the test split; it is not the run's seed. Five
            divisions of 30 slices differ, and each slice is in the test split of one of them.
    """

    classes = ("membrane", "cell")
    colors: tuple[Color, ...] = ((30, 30, 30), (235, 220, 180))

    def __init__(self, root: str, split_seed: int = 0):
        self.root, self.split_seed = Path(root), check_split_seed(split_seed)

    def load_splits(self) -> dict[str, list[Item]]:
        require_folders([self.root / "image", self.root / "label"], ADVICE)
        labels = LabelMap({0: "membrane", 255: "cell"}, self.classes)
        slices = list(pair_files(self.root / "image", self.root / "label", labels, on_error=self.on_error).values())
        first, last = round(0.6 * len(slices)), round(0.8 * len(slices))
        start = self.split_seed * (len(slices) - last) % len(slices)
        slices = slices[start:] + slices[:start]
        return {"train": slices[:first], "val": slices[first:last], "test": slices[last:]}

    def group_of(self, item: Item) -> str:
        return "stack"
