"""The page to try networks: what it answers, what it refuses, what it lets no one have; then in a browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tifffile
from conftest import ROOT, script
from folders import noise, save, sentence
from networks import checkpoint
from omegaconf import OmegaConf
from PIL import Image

from unet.apply import PredictOptions
from unet.data.isbi2012 import Isbi2012
from unet.demo import answer as answering
from unet.demo.answer import Answer, Said, answer
from unet.demo.networks import name_of, networks_of, spelled
from unet.demo.pictures import from_files, from_run, picture
from unet.demo.server import bound, loopback
from unet.demo.tables import legend, percent, summary
from unet.errors import UserError

EXACT = PredictOptions(precision="32-true")
BROWSER = next(filter(None, map(shutil.which, script("screenshots").BROWSERS)), None)
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs Gradio: pip install -e '.[demo]'")
needs_browser = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None,
    reason="needs Chromium or Chrome on the PATH, and playwright: pip install playwright",
)


def two(folder: Path, **other) -> list[Path]:
    """Two networks of the same classes that differ in how they go down, A and B."""
    paths = []
    for name, down in (("A", "max"), ("B", {"name": "strided", "kernel_size": 3})):
        (folder / name / "checkpoints").mkdir(parents=True)
        model = {"in_channels": 3, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": 2, "down": down}
        paths.append(checkpoint(folder / name / "checkpoints", model=model, **other))
    return paths


def by_hand() -> Answer:
    """2 x 3 pixels; the networks differ in the last one of each row."""
    first, second = np.array([[0, 0, 1], [0, 1, 1]], np.uint8), np.array([[0, 0, 2], [0, 1, 0]], np.uint8)
    sure = np.zeros((2, 3, 3), np.uint8)
    sure[0, 0] = 255, 0, 0
    said = [Said(labels, np.bincount(labels.ravel(), minlength=3) / 6, sure) for labels in (first, second)]
    return Answer((2, 3), 1, np.full((2, 3, 3), 200, np.uint8), said, 0.5)


def test_operators_and_checkpoints_are_named_as_a_person_would():
    assert spelled("max") == "max"
    assert spelled({"name": "max", "kernel_size": 3}) == "max (kernel_size 3)"
    assert spelled(["max", {"name": "blur"}]) == "max, blur"
    assert name_of(Path("outputs/RUN/checkpoints/best.ckpt")) == "RUN/best.ckpt"
    assert name_of(Path("/secret/models/mine.ckpt")) == "models/mine.ckpt"


def test_networks_that_the_page_cannot_show_are_refused(tmp_path: Path):
    first, second = two(tmp_path)
    found = networks_of([first, second], "cpu")
    assert [(one.letter, one.name, one.operator("down"), one.operator("up")) for one in found] == [
        ("A", "A/best.ckpt", "max", "transposed"),
        ("B", "B/best.ckpt", "strided (kernel_size 3)", "transposed"),
    ]
    with pytest.raises(UserError) as error:
        networks_of([first] * 3, "cpu")
    sentence(error, "ckpt", "3")
    for axes, word in ((1, "sequences"), (3, "volumes")):
        (tmp_path / word).mkdir()
        with pytest.raises(UserError) as error:
            networks_of([checkpoint(tmp_path / word, axes)], "cpu")
        sentence(error, word, "predict.py", word)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError) as error:
        networks_of([first, checkpoint(tmp_path / "other", classes=["sea", "sky", "land"])], "cpu")
    sentence(error, "sea, sky, land", "sky, sea, land", "same order")


@pytest.mark.parametrize("longest", [1024, 30])
def test_an_answer_is_what_the_networks_predict_and_is_shown_smaller_where_it_is_large(tmp_path, monkeypatch, longest):
    monkeypatch.setattr(answering, "LONGEST", longest)
    monkeypatch.setattr(answering, "ROWS", 7)
    image, networks = noise(50, 71, 3), networks_of(two(tmp_path), "cpu")
    path = save(tmp_path / "a.png", image)
    found = answer(networks, picture(path, 1), PredictOptions(tile=[32, 32], precision="32-true"))
    step = found.step
    assert step == (3 if longest == 30 else 1) and found.size == (50, 71)
    assert np.array_equal(found.shown, image[::step, ::step])
    expected = []
    for number, (network, said) in enumerate(zip(networks, found.said, strict=True)):
        labels, shares = network.model.predict(image, probabilities=True, tile=[32, 32], precision="32-true")
        expected.append(labels)
        assert np.array_equal(said.labels, labels)
        assert said.shares == pytest.approx([(labels == label).mean() for label in range(3)])
        kept = shares[::step, ::step].astype(np.float32) * 255
        assert said.probabilities.shape == kept.shape and np.abs(said.probabilities - kept).max() <= 0.5
        assert found.overlay(number, network.model.colors).shape == found.shown.shape
    assert 0 < found.differing < 1 and found.differing == (expected[0] != expected[1]).mean()
    assert found.differences().shape == found.shown.shape


def test_differences_are_red_and_counted():
    found = by_hand()
    assert found.differing == pytest.approx(1 / 3)
    red = (found.differences() == (220, 30, 30)).all(-1)
    assert red.tolist() == [[False, False, True], [False, False, True]]
    coarse = Answer((2, 3), 2, found.shown[::2, ::2], found.said, 0.5)
    assert (coarse.differences() == (220, 30, 30)).all(-1).tolist() == [
        [False, True]
    ]  # none is lost between those shown
    overlay = found.overlay(0, [[0, 0, 0], [100, 100, 100], [0, 0, 0]])
    assert overlay[0, :, 0].tolist() == [110, 110, 155]  # 0.55 of the picture's 200, 0.45 of the class's colour
    dark, bright = found.probability(0, 0)[0, 1].sum(), found.probability(0, 0)[0, 0].sum()
    assert dark < 0.5 * bright


def test_text_says_shares_and_escapes_what_came_from_a_file(tmp_path: Path):
    networks = networks_of(two(tmp_path, classes=["<script>", "sea", "land"]), "cpu")
    page = legend(networks, by_hand())
    assert "<script>" not in page and "&lt;script&gt;" in page and "rgb(0, 0, 255)" in page
    assert [page.count(share) for share in ("50.0 %", "66.7 %", "16.7 %")] == [
        2,
        1,
        2,
    ]  # A: 3, 3, 0 of six pixels; B: 4, 1, 1
    assert "<b>a&amp;b.png</b>: 3 x 2 pixels" in summary("a&b.png", by_hand())
    assert "33.3 %" in summary("a.png", by_hand())
    assert [percent(share) for share in (0, 0.0001, 0.1234, 1)] == ["0.0 %", "< 0.1 %", "12.3 %", "100.0 %"]


def bad_files(folder: Path) -> dict[Path, list[str]]:
    """Files that the page refuses, and words of the sentence that it does so with."""
    huge = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + huge + zlib.crc32(huge).to_bytes(4, "big")
    tifffile.imwrite(folder / "pages.tif", noise(4, 8, 8, 3), photometric="rgb")
    np.save(folder / "volume.npy", noise(4, 8, 8, 3))
    np.save(folder / "nan.npy", np.full((8, 8, 3), np.nan, np.float32))
    np.save(folder / "five.npy", noise(8, 8, 5))
    whole = save(folder / "whole.png", noise(64, 64, 3)).read_bytes()
    for name, content in {
        "notes.txt": b"no picture",
        "scan.nii.gz": b"",
        "empty.png": b"",
        "text.png": b"no picture",
        "cut.png": whole[: len(whole) // 2],
        "huge.png": header + whole[33:],
    }.items():
        (folder / name).write_bytes(content)
    return {
        folder / "notes.txt": [".png", "predict.py"],
        folder / "scan.nii.gz": ["volumes", "predict.py"],
        folder / "empty.png": ["cannot be read"],
        folder / "text.png": ["cannot be read"],
        folder / "cut.png": ["cannot be read"],
        folder / "huge.png": ["60000 x 60000", "max_megapixels", "predict.py"],
        folder / "pages.tif": ["4 pages", "predict.py"],
        folder / "volume.npy": ["4 x 8 x 8 x 3"],
        folder / "nan.npy": ["NaN"],
        folder / "five.npy": ["5 channels"],
    }


def test_bad_files_are_refused_in_a_sentence(tmp_path: Path):
    networks = networks_of(two(tmp_path)[:1], "cpu")
    for path, words in bad_files(tmp_path).items():
        with pytest.raises(UserError) as error:
            answer(networks, picture(path, 20), EXACT)
        sentence(error, *words)
    with pytest.raises(UserError) as error:
        picture(tmp_path / "whole.png", 0.004)
    sentence(error, "64 x 64", "0.004 million")


def test_pictures_to_pick_from_a_folder(tmp_path: Path):
    for number in range(14):
        save(tmp_path / f"{number}.png", noise(8, 8, 3))
    (tmp_path / "a.nii").write_bytes(b"")
    found = from_files(str(tmp_path), 1)
    assert [choice.name for choice in found] == [f"{number}.png" for number in range(12)]
    assert found[0].read().size == (8, 8)
    with pytest.raises(UserError) as error:
        from_files(str(tmp_path / "nothing"), 1)
    sentence(error, "images=", "nothing")


def of_a_run(folder: Path, source: dict) -> Path:
    path = two(folder)[0]
    OmegaConf.save({"data": {"name": "mine", "source": source}}, path.parent.parent / "config.yaml")
    return path


def test_pictures_of_the_run_are_those_it_was_scored_on(tmp_path: Path, stack: Path):
    path = of_a_run(tmp_path, {"_target_": "unet.data.isbi2012.Isbi2012", "root": str(stack)})
    scored = {Path(item.name).name: item for item in Isbi2012(str(stack)).items["test"]}
    found = from_run(path)
    assert {choice.name for choice in found} == set(scored)
    for choice in found:
        assert np.array_equal(choice.read().rows(0, 48), scored[choice.name].read()[0])


@pytest.mark.parametrize("nested", [False, True])
def test_a_config_beside_a_checkpoint_calls_nothing_but_this_project(tmp_path: Path, nested: bool):
    harm = {"_target_": "os.mkdir", "path": str(tmp_path / "harm")}
    source = {"_target_": "unet.data.isbi2012.Isbi2012", "root": [harm]} if nested else harm
    with pytest.raises(UserError) as error:
        from_run(of_a_run(tmp_path, source))
    sentence(error, "os.mkdir", "not called")
    assert not (tmp_path / "harm").exists()


def test_a_port_in_use_and_an_address_elsewhere_are_said():
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            bound("127.0.0.1", port)
        sentence(error, f"port={port}", "in use", f"port={port + 1}")
    for host, number, word in (("192.0.2.1", 0, "192.0.2.1"), ("127.0.0.1", 70000, "70000")):
        with pytest.raises(UserError) as error:
            bound(host, number)
        sentence(error, word)
    assert loopback("127.0.0.1") and loopback("::1") and loopback("localhost")
    assert not loopback("0.0.0.0") and not loopback("example.org")


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A page of two networks as a process of its own, and its address; its temporary files lie in ``folder``."""
    first, second = two(folder / "runs")
    (folder / "temporary").mkdir()
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), f"ckpt=[{first},{second}]", "port=0", "threads=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "temporary")}
    with subprocess.Popen(
        [*command, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = next(found[1] for line in process.stdout if (found := re.match(r"(http://\S+)", line)))
            yield address, process
        finally:
            process.kill()


def posted(address: str, content: bytes, kind: str) -> str:
    with urlopen(Request(address, content, {"Content-Type": kind}), timeout=60) as answered:
        return answered.read().decode()


def uploaded(address: str, name: str, content: bytes) -> str:
    """Where the server put an upload."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--x--\r\n"
    return json.loads(posted(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=x"))[0]


def asked(address: str, path: str) -> str:
    """What the server sends of an answer to a file, as text."""
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "land"]}
    event = json.loads(posted(f"{address}/gradio_api/call/labels", json.dumps(data).encode(), "application/json"))
    with urlopen(f"{address}/gradio_api/call/labels/{event['event_id']}", timeout=60) as answered:
        return answered.read().decode()


def status(request: str | Request) -> int:
    try:
        with urlopen(request, timeout=60) as answered:
            return answered.status
    except HTTPError as error:
        error.close()
        return error.code


@needs_gradio
@pytest.mark.slow
def test_the_page_answers_and_keeps_what_is_not_its_own(tmp_path: Path):
    image = noise(40, 60, 3)
    outside = save(tmp_path / "outside.png", image)
    (tmp_path / "bad").mkdir()
    with served(tmp_path, "max_upload_mb=0.1") as (address, process):
        assert address.startswith("http://127.0.0.1:")
        said = asked(address, uploaded(address, "mine.png", outside.read_bytes()))
        assert "event: complete" in said and "<b>mine.png</b>: 60 x 40 pixels" in said and "A and B differ in" in said
        (shown,) = re.findall(r'"url": "[^"]*?(/gradio_api/file=[^"]+)"', said.split("</table>")[1])[:1]
        with urlopen(address + shown, timeout=60) as answered:
            assert np.array_equal(np.asarray(Image.open(answered))[::10, ::10], image)  # enlarged tenfold
            assert "default-src 'self'" in answered.headers["Content-Security-Policy"]
        for path, words in bad_files(tmp_path / "bad").items():
            said = asked(address, uploaded(address, path.name, path.read_bytes()))
            assert "event: complete" in said and "refused" in said and "Traceback" not in said
            assert f">{path.name}: " in said and "temporary" not in said, said  # of the server's folders nothing
            assert [word for word in words if word not in said] == [], said
        with pytest.raises(HTTPError) as error:
            uploaded(address, "large.png", bytes(200_000))
        error.value.close()
        assert error.value.code == 413
        assert "was not uploaded" in asked(address, str(outside))
        assert "no addresses" in asked(address, f"{address}/gradio_api/startup-events")
        assert status(f"{address}/gradio_api/file={outside}") == 403
        assert status(Request(address, headers={"Host": "elsewhere.example"})) == 400
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert not list((tmp_path / "temporary").glob("unet-demo-*"))


@needs_gradio
@needs_browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_browser_a_picture_is_picked_another_uploaded_and_a_bad_one_refused(tmp_path: Path):
    from playwright.sync_api import expect, sync_playwright

    for name, seed in (("first", 1), ("second", 2)):
        save(tmp_path / "pictures" / f"{name}.png", noise(40, 60, 3, seed=seed))
    mine, bad = save(tmp_path / "mine.png", noise(30, 50, 3)), tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with served(tmp_path, "images=pictures") as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, requests, mistakes = browser.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.goto(address)
        said = page.locator("#summary")
        expect(said).to_contain_text("first.png: 60 x 40 pixels", timeout=60_000)
        expect(said).to_contain_text("A and B differ in")
        expect(page.locator("#networks")).to_contain_text("strided (kernel_size 3)")
        page.locator("#choices button img").nth(1).click()
        expect(said).to_contain_text("second.png", timeout=60_000)
        page.locator("#upload input[type=file]").set_input_files(mine)
        expect(said).to_contain_text("mine.png: 50 x 30 pixels", timeout=60_000)
        expect(page.locator("#legend")).to_contain_text("B, share")
        expect(page.locator("img[src*='gradio_api']:visible")).to_have_count(2 + 6)  # to pick; of the answer
        before = page.locator("img[src*='gradio_api']").last.get_attribute("src")
        page.locator("#class input").click()
        page.get_by_role("option", name="sky").click()
        expect(page.locator("img[src*='gradio_api']").last).not_to_have_attribute("src", before or "", timeout=60_000)
        page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
        page.locator("#upload input[type=file]").set_input_files(bad)
        expect(page.get_by_role("alert").filter(has_text="cannot be read")).to_be_visible(timeout=60_000)
        assert not mistakes
        assert {url.split("/")[2] for url in requests if url.startswith("http")} == {address.split("/")[2]}
        browser.close()


def refused(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.slow
def test_a_wrong_command_gets_one_sentence(tmp_path: Path):
    assert "ckpt: is required" in refused()
    assert "max_upload_mb: expected a number above 0, found 0" in refused("ckpt=x", "max_upload_mb=0")
    if find_spec("gradio") is None:
        assert "pip install -e '.[demo]'" in refused("ckpt=x")
        return
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in refused("ckpt=x", f"port={taken.getsockname()[1]}")
    assert "no such file" in refused("ckpt=nowhere.ckpt", "port=0").lower()
