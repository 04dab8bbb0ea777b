"""Tests of downloads: complete or not at all, and never outside their folder."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision.datasets
from folders import sentence
from test_public_data import oxford_pet, voc2012

from unet.data.oxford_pet import OxfordPet
from unet.data.voc2012 import Voc2012
from unet.errors import UserError


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve small archives in the official layout from a folder."""
    site = tmp_path / "site"
    pets, voc = oxford_pet(tmp_path / "made") / "oxford-iiit-pet", voc2012(tmp_path / "made")
    site.mkdir()
    for name, root, member in (
        ("images.tar.gz", pets, "images"),
        ("annotations.tar.gz", pets, "annotations"),
        ("VOCtrainval_11-May-2012.tar", voc, "VOCdevkit"),
    ):
        with tarfile.open(site / name, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(root / member, member)
    shutil.rmtree(tmp_path / "made")
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(
        "torchvision.datasets.utils._urlretrieve", lambda url, path: shutil.copyfile(site / Path(url).name, path)
    )
    publish(site, monkeypatch)
    return site


def publish(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set torchvision's checksums to those of the small archives."""
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in site.iterdir()}
    resources = tuple((url, sums[Path(url).name]) for url, _ in torchvision.datasets.OxfordIIITPet._RESOURCES)
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", resources)
    entry = torchvision.datasets.voc.DATASET_YEAR_DICT["2012"]
    monkeypatch.setitem(entry, "md5", sums[entry["filename"]])


def test_oxford_pet_is_downloaded_once_without_its_archives(mirror, tmp_path):
    items = OxfordPet(str(tmp_path / "data")).items
    assert {split: len(members) for split, members in items.items()} == {"train": 18, "val": 2, "test": 6}
    assert items["train"][0].read()[1].ndim == 2
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"oxford-iiit-pet"}
    assert {path.name for path in (tmp_path / "data" / "oxford-iiit-pet").iterdir()} == {"images", "annotations"}
    shutil.rmtree(mirror)
    assert OxfordPet(str(tmp_path / "data")).items["test"][0].name == items["test"][0].name


def test_voc_is_downloaded_next_to_another_year(mirror, tmp_path):
    (tmp_path / "data" / "VOCdevkit" / "VOC2007").mkdir(parents=True)
    items = Voc2012(str(tmp_path / "data")).items
    assert {split: len(members) for split, members in items.items()} == {"train": 4, "val": 3, "test": 2}
    assert {path.name for path in (tmp_path / "data" / "VOCdevkit").iterdir()} == {"VOC2007", "VOC2012"}


def test_an_incomplete_data_set_is_completed(mirror, tmp_path):
    existing = tmp_path / "data" / "oxford-iiit-pet" / "images" / "existing.jpg"
    existing.parent.mkdir(parents=True)
    existing.touch()
    assert len(OxfordPet(str(tmp_path / "data")).items["test"]) == 6
    assert existing.exists()


def damaged(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncate the last archive."""
    path = mirror / "annotations.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def offline(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, path: str) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)


def leaves_its_folder(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a member outside its folder to the archive."""
    with tarfile.open(mirror / "annotations.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../../../evil.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    publish(mirror, monkeypatch)


def links_out(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a link out of its folder, and a file below the link, to the archive."""
    with tarfile.open(mirror / "annotations.tar.gz", "w:gz") as tar:
        link, member = tarfile.TarInfo("annotations"), tarfile.TarInfo("annotations/evil.txt")
        link.type, link.linkname, member.size = tarfile.SYMTYPE, "../../..", 4
        tar.addfile(link)
        tar.addfile(member, io.BytesIO(b"evil"))
    publish(mirror, monkeypatch)


@pytest.mark.parametrize("damage", [damaged, offline, leaves_its_folder, links_out])
def test_a_failed_download_leaves_nothing_and_has_instructions(mirror, tmp_path, monkeypatch, damage):
    damage(mirror, monkeypatch)
    with pytest.raises(UserError) as error:
        OxfordPet(str(tmp_path / "data")).load_splits()
    site = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
    place = str(tmp_path / "data" / "oxford-iiit-pet")
    sentence(error, "cannot be downloaded", f"{site}/images.tar.gz", f"{site}/annotations.tar.gz", place)
    assert list((tmp_path / "data").iterdir()) == []
    assert not list(tmp_path.rglob("evil.txt"))
    assert tarfile.TarFile.extraction_filter is None
