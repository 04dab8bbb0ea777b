"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs with trimaps, laid out as torchvision's ``OxfordIIITPet``."""

from itertools import count
from pathlib import Path

from unet.data.download import Archive, provide
from unet.data.files import LabelMap, file_item, read_lines
from unet.data.source import Color, Item, Source
from unet.errors import UserError

SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
ARCHIVES = (
    Archive(f"{SITE}/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", "images"),
    Archive(f"{SITE}/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f", "annotations"),
)
TENTH = 10


class OxfordPet(Source):
    """Pet, background and the border between them (Parkhi et al. 2012).

    The official test split is test; of the official trainval split every tenth image of each breed is val.

    Args:
        root: torchvision's root: the folder that holds, or will hold, ``oxford-iiit-pet``.
        border: ``class``: the trimap's border is a third class; ``ignore``: it is left out of loss and metrics.
        download: whether a missing data set (800 MB) may be downloaded.
    """

    classes: tuple[str, ...] = ("pet", "background", "border")
    colors: tuple[Color, ...] = ((230, 159, 0), (40, 40, 60), (240, 240, 240))

    def __init__(self, root: str, border: str = "class", download: bool = True):
        if border not in ("class", "ignore"):
            raise UserError(f"data.source.border: expected class or ignore, found {border!r}")
        if border == "ignore":
            self.classes = self.classes[:2]
        self.folder = Path(root) / "oxford-iiit-pet"
        self.download = download

    def find(self) -> dict[str, list[Item]]:
        provide(self.folder, ARCHIVES, self.download)
        labels = LabelMap(
            {1: "pet", 2: "background", 3: self.classes[2] if self.classes[2:] else "ignore"}, self.classes
        )
        splits: dict[str, list[Item]] = {"train": [], "val": [], "test": self.listed("test", labels)[1]}
        seen: dict[str, count] = {}
        for name, item in zip(*self.listed("trainval", labels), strict=True):
            place = next(seen.setdefault(name.rpartition("_")[0], count(1)))  # Abyssinian_100: breed and number
            splits["train" if place % TENTH else "val"].append(item)
        return splits

    def listed(self, split: str, labels: LabelMap) -> tuple[list[str], list[Item]]:
        """Names and items of an official split; some of its files are PNG or GIF in truth, hence RGB for all."""
        names = [line.split()[0] for line in read_lines(self.folder / "annotations" / f"{split}.txt")]
        images, masks = self.folder / "images", self.folder / "annotations" / "trimaps"
        return names, [file_item(images / f"{name}.jpg", masks / f"{name}.png", labels, "RGB") for name in names]
