"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs with trimaps, in the layout of torchvision's dataset."""

from itertools import count
from pathlib import Path

from unet.data.download import ensure_downloaded
from unet.data.files import file_item, read_lines
from unet.data.label_map import LabelMap
from unet.data.source import Color, Item, Source
from unet.errors import UserError
from unet.io.image_reader import ReadOptions

SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
FOLDER = "oxford-iiit-pet"


class OxfordPet(Source):
    """Pet, background and the border between them (Parkhi et al. 2012).

    The official test split is test; of the official trainval split every tenth image of each breed is val.

    Args:
        root: torchvision's root: the folder of ``oxford-iiit-pet``.
        border: ``class``: the trimap's border is a third class; ``ignore``: it is ignored by loss and metrics.
        download: whether a missing data set (800 MB) may be downloaded.
    """

    classes: tuple[str, ...] = ("pet", "background", "border")
    colors: tuple[Color, ...] = ((230, 159, 0), (40, 40, 60), (240, 240, 240))

    read_options = ReadOptions(mode="RGB")  # some files are in fact PNG or GIF

    def __init__(self, root: str, border: str = "class", download: bool = True):
        if border not in ("class", "ignore"):
            raise UserError(f"data.source.border: expected class or ignore, found {border!r}")
        if border == "ignore":
            self.classes = self.classes[:2]
        self.root, self.download = Path(root), download

    def load_splits(self) -> dict[str, list[Item]]:
        manual = (
            f"download {SITE}/images.tar.gz and {SITE}/annotations.tar.gz and extract both in {self.root / FOLDER}, or "
            f"set data.root=..."
        )
        folders = [f"{FOLDER}/images", f"{FOLDER}/annotations"]
        ensure_downloaded(self.root, folders, "OxfordIIITPet", self.download, manual)
        labels = LabelMap(
            {1: "pet", 2: "background", 3: self.classes[2] if self.classes[2:] else "ignore"}, self.classes
        )
        splits: dict[str, list[Item]] = {"train": [], "val": [], "test": self.official_split("test", labels)[1]}
        counters: dict[str, count] = {}
        for name, item in zip(*self.official_split("trainval", labels), strict=True):
            number = next(counters.setdefault(name.rpartition("_")[0], count(1)))  # Abyssinian_100: breed and number
            splits["train" if number % 10 else "val"].append(item)
        return splits

    def official_split(self, split: str, labels: LabelMap) -> tuple[list[str], list[Item]]:
        """Return names and items of an official split."""
        names = [line.split()[0] for line in read_lines(self.root / FOLDER / "annotations" / f"{split}.txt")]
        images, masks = self.root / FOLDER / "images", self.root / FOLDER / "annotations" / "trimaps"
        files = ((images / f"{name}.jpg", masks / f"{name}.png") for name in names)
        return names, [file_item(image, mask, labels, self.read_options) for image, mask in files]
