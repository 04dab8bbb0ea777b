"""Archives are fetched whole or not at all, and never leave their folder."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unet.data.download import Archive, extract, provide
from unet.errors import UserError

FILES = {"images/a.txt": b"a", "images/deep/b.txt": b"b" * 3_000_000, "notes.txt": b"not wanted"}


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def archive_of(path: Path, url: str = "", brings: str = "images") -> Archive:
    return Archive(url or path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest(), brings)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; what lies under ``cut`` ends in the middle."""

    def do_GET(self) -> None:
        if not self.path.startswith("/cut/"):
            return super().do_GET()
        whole = (Path(self.directory) / Path(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole[: len(whole) // 2])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a local server offers it."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("make, name", [(tar_of, "set.tar.gz"), (zip_of, "set.zip")])
def test_an_archive_is_fetched_and_only_what_is_wanted_is_kept(site, tmp_path, make, name, capsys):
    folder, address = site
    archive = archive_of(make(folder / name, FILES), f"{address}/{name}")
    provide(tmp_path / "data" / "set", [archive], download=True)
    assert content(tmp_path / "data" / "set") == {key: FILES[key] for key in FILES if key.startswith("images/")}
    assert list((tmp_path / "data" / "set").iterdir()) == [tmp_path / "data" / "set" / "images"]
    assert f"{address}/{name}" in capsys.readouterr().err


def test_a_folder_within_the_archive_finds_its_place_beside_others(tmp_path):
    archive = archive_of(tar_of(tmp_path / "a.tar", {"kit/new/a.txt": b"a"}), brings="kit/new")
    (tmp_path / "data" / "kit" / "old").mkdir(parents=True)
    provide(tmp_path / "data", [archive], download=True)
    assert sorted(path.name for path in (tmp_path / "data" / "kit").iterdir()) == ["new", "old"]


def test_what_is_there_is_not_fetched_again(tmp_path):
    (tmp_path / "images").mkdir()
    provide(tmp_path, [Archive("http://nowhere.invalid/set.tar", "0" * 32, "images")], download=True)


def test_a_missing_set_that_may_not_be_downloaded_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError) as error:
        provide(tmp_path, [Archive("https://example.org/set.tar", "0123", "images")], download=False)
    for part in (
        "https://example.org/set.tar",
        "0123",
        str(tmp_path / "images"),
        "data.source.download=true",
        "data.root",
    ):
        assert part in str(error.value)


def refused(address: str, folder: Path, damage: str) -> Archive:
    good = archive_of(tar_of(folder / "set.tar.gz", FILES), f"{address}/set.tar.gz")
    return {
        "absent": Archive(f"{address}/other.tar.gz", good.md5, "images"),
        "cut": Archive(f"{address}/cut/set.tar.gz", good.md5, "images"),
        "changed": Archive(good.url, "0" * 32, "images"),
        "closed": Archive("http://127.0.0.1:9/set.tar.gz", good.md5, "images"),
    }[damage]


@pytest.mark.parametrize("damage", ["absent", "cut", "changed", "closed"])
def test_a_failed_download_names_the_address_the_place_and_leaves_nothing(site, tmp_path, damage):
    folder, address = site
    archive = refused(address, folder, damage)
    with pytest.raises(UserError) as error:
        provide(tmp_path / "data", [archive], download=True)
    for part in (archive.url, archive.md5, str(tmp_path / "data" / "images")):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_that_lacks_its_folder_is_refused(tmp_path):
    archive = archive_of(tar_of(tmp_path / "a.tar", {"other/a.txt": b"a"}))
    with pytest.raises(UserError, match="holds no folder images"):
        provide(tmp_path / "data", [archive], download=True)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>moved</html>" * 100)
    with pytest.raises(UserError, match=r"a\.tar: cannot be extracted"):
        provide(tmp_path / "data", [archive_of(tmp_path / "a.tar")], download=True)


OUTSIDE = [
    "../evil.txt",
    "images/../../evil.txt",
    "/evil.txt",
    "C:/evil.txt",
    "..\\evil.txt",
    "images\\..\\..\\evil.txt",
]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_member_leaves_the_folder(tmp_path, make, name):
    archive = make(tmp_path / "archive", {name: b"evil", "images/a.txt": b"a"})
    with pytest.raises(UserError, match="leads out of its folder"):
        extract(archive, tmp_path / "into")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("images/link")
        member.type, member.linkname = kind, "a.txt"
        tar.addfile(member)
    with pytest.raises(UserError, match="images/link: a link or device"):
        extract(tmp_path / "a.tar", tmp_path / "into")


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        member = zipfile.ZipInfo("images/link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc")
    with pytest.raises(UserError, match="images/link: a link or device"):
        extract(tmp_path / "a.zip", tmp_path / "into")
