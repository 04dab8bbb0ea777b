"""The demo page: its outputs, its error messages, and the files it serves; over HTTP and in a browser."""

import json
import os
import re
import shutil
import signal
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
from conftest import ROOT
from folders import noise, save, sentence
from networks import checkpoint
from omegaconf import OmegaConf

from unet import load
from unet.data.isbi2012 import Isbi2012
from unet.demo.app import folder_samples, load_networks, open_limited, predict_image, run_samples
from unet.errors import UserError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs Gradio: pip install -e '.[demo]'")
needs_browser = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None,
    reason="needs Chromium or Chrome on the PATH and playwright: pip install -e '.[dev]'",
)


def two_checkpoints(folder: Path, **description) -> list[Path]:
    """Save two networks A and B with the same classes and other downsampling."""
    paths = []
    for name, down in (("A", "max"), ("B", {"name": "strided", "kernel_size": 3})):
        (folder / name / "checkpoints").mkdir(parents=True)
        model = {"in_channels": 3, "num_classes": 3, "width": 4, "depth": 2, "spatial_dims": 2, "down": down}
        paths.append(checkpoint(folder / name / "checkpoints", model=model, **description))
    return paths


def test_networks_have_titles_and_incompatible_ones_are_an_error(tmp_path: Path):
    first, second = two_checkpoints(tmp_path)
    assert [title for title, _ in load_networks([first, second], "cpu")] == [
        "A: A/best.ckpt down=max up=transposed",
        "B: B/best.ckpt down={name:strided,kernel_size:3} up=transposed",
    ]
    for axes, word in ((1, "sequences"), (3, "volumes")):
        (tmp_path / word).mkdir()
        with pytest.raises(UserError) as error:
            load_networks([checkpoint(tmp_path / word, axes)], "cpu")
        sentence(error, word, "predict.py")


def test_the_page_shows_predictions_and_their_difference(tmp_path: Path):
    image, networks = noise(50, 71, 3), load_networks(two_checkpoints(tmp_path, classes=["<b>", "sea", "land"]), "cpu")
    summary, legend, picture, *overlays, difference = predict_image(
        networks, open_limited(save(tmp_path / "a&b.png", image), 1, networks[0][1])
    )
    first, second = (network.predict(image) for _, network in networks)
    assert 0 < (first != second).mean() < 1 and f"differ in <b>{(first != second).mean():.1%}</b>" in summary
    assert "<b>a&amp;b.png</b>: 71 x 50 pixels" in summary and "<b>" not in legend and "&lt;b&gt;" in legend
    for labels in (first, second):
        assert [f"<td>{(labels == label).mean():.1%}</td>" in legend for label in range(3)] == [True] * 3
    assert np.array_equal(picture[::14, ::14], image) and not np.array_equal(*overlays)  # 14 times as large
    assert np.array_equal((difference[::14, ::14] == (220, 30, 30)).all(-1), first != second)


def test_the_page_warns_of_an_image_unlike_the_training_images(tmp_path: Path):
    networks = load_networks(two_checkpoints(tmp_path, dtype="uint8", range=[0.0, 255.0]), "cpu")
    np.save(tmp_path / "a.npy", noise(50, 71, 3) / np.float32(255))
    summary, *_ = predict_image(networks, open_limited(tmp_path / "a.npy", 1, networks[0][1]))
    assert summary.count("<b>warning</b>: float32 values from 0 to 1, but the network was trained on uint8 images") == 1


def bad_files(folder: Path) -> dict[Path, str]:
    """Write invalid files, and return a part of each error message."""
    huge = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + huge + zlib.crc32(huge).to_bytes(4, "big")
    save(folder / "large.png", noise(300, 400, 3))
    small = save(folder / "small.png", noise(64, 64, 3)).read_bytes()
    np.save(folder / "volume.npy", noise(4, 8, 8, 3))
    np.save(folder / "inf.npy", np.full((8, 8, 3), np.inf, np.float32))
    np.save(folder / "five.npy", noise(8, 8, 5))
    for name, content in {"text.png": b"", "cut.png": small[:2000], "huge.png": header + small[33:]}.items():
        (folder / name).write_bytes(content)
    return {
        folder / "large.png": "300 x 400 pixels, more than max_megapixels=0.1",
        folder / "text.png": "cannot be read",
        folder / "cut.png": "cannot be read",
        folder / "huge.png": "which Pillow refuses",
        folder / "volume.npy": "4 x 8 x 8 x 3",
        folder / "inf.npy": "infinite",
        folder / "five.npy": "5 channels",
    }


def test_samples_come_from_a_folder_or_the_test_split(tmp_path: Path, stack: Path):
    for number in range(14):
        save(tmp_path / "images" / f"{number}.png", noise(8, 8, 3))
    (tmp_path / "images" / "0.png").write_bytes(b"")
    (tmp_path / "images" / "a.nii").write_bytes(b"")
    path = two_checkpoints(tmp_path)[0]
    samples = folder_samples(str(tmp_path / "images"), 1, load(path))
    assert [image.path.name for image in samples] == [f"{n}.png" for n in range(1, 12)]
    config = {"data": {"source": {"_target_": "unet.data.isbi2012.Isbi2012", "root": str(stack)}}}
    OmegaConf.save(config, path.parent.parent / "config.yaml")
    scored = {Path(item.name).name: item.read()[0] for item in Isbi2012(str(stack)).items["test"]}
    samples = run_samples(path)
    assert {image.path.name for image in samples} == set(scored)
    assert all(np.array_equal(image.rows(0, 48), scored[image.path.name]) for image in samples)


@pytest.mark.parametrize("target", ["os.mkdir", "unet.data.folder.Path.mkdir", "unet.data.files.np.save"])
def test_the_config_of_a_run_can_only_create_data_sources(tmp_path: Path, target: str, capsys):
    harm = {"_target_": target, "_args_": [str(tmp_path / "harm"), 1]}
    paths = two_checkpoints(tmp_path)
    for path, source in zip(paths, (harm, {"_target_": "unet.data.isbi2012.Isbi2012", "root": [harm]}), strict=True):
        OmegaConf.save({"data": {"source": source}}, path.parent.parent / "config.yaml")
        assert run_samples(path) == [] and "for security" in capsys.readouterr().out
    assert not list(tmp_path.glob("harm*"))


@contextmanager
def demo_server(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the command with two networks, temporary files in ``folder``, and yield the address of the page."""
    first, second = two_checkpoints(folder / "runs")
    (folder / "temporary").mkdir()
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), f"ckpt=[{first},{second}]", "port=0", "threads=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "temporary")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([*command, *options], cwd=folder, env=environment, **pipes) as process:
        try:
            yield next(match[1] for line in process.stdout if (match := re.match(r"(http://\S+)/ ", line))), process
        finally:
            process.kill()


def post(address: str, content: bytes, content_type: str) -> str:
    with urlopen(Request(address, content, {"Content-Type": content_type}), timeout=60) as response:
        return response.read().decode()


def upload(address: str, name: str, content: bytes) -> str:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + content + b"\r\n--x--\r\n"
    return json.loads(post(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=x"))[0]


def predict(address: str, path: str) -> str:
    data = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()
    event = json.loads(post(f"{address}/gradio_api/call/predict", data, "application/json"))["event_id"]
    with urlopen(f"{address}/gradio_api/call/predict/{event}", timeout=60) as response:
        return response.read().decode()


@needs_gradio
@pytest.mark.slow
def test_the_server_predicts_reports_errors_and_serves_no_other_file(tmp_path: Path):
    outside = save(tmp_path / "outside.png", noise(40, 60, 3))
    with demo_server(tmp_path, "max_upload_mb=0.5", "max_megapixels=0.1") as (address, process):
        assert address.startswith("http://127.0.0.1:")
        response = predict(address, upload(address, "mine.png", outside.read_bytes()))
        assert "event: complete" in response and "mine.png</b>: 60 x 40 pixels" in response
        (tmp_path / "bad").mkdir()
        for path, message in bad_files(tmp_path / "bad").items():
            response = predict(address, upload(address, path.name, path.read_bytes()))
            assert "event: error" in response and message in response and path.name in response, response
            assert "Traceback" not in response and "temporary" not in response, response
        assert "Invalid file type" in predict(address, upload(address, "scan.nii.gz", b"x"))
        with pytest.raises(HTTPError, match="413"):
            upload(address, "large.png", bytes(600_000))
        assert "event: error" in predict(address, str(outside))
        with pytest.raises(HTTPError, match="403"):
            urlopen(f"{address}/gradio_api/file={outside}", timeout=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert not list((tmp_path / "temporary").glob("unet-demo-*"))


@needs_gradio
@needs_browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_in_a_browser(tmp_path: Path):
    from playwright.sync_api import expect, sync_playwright

    for seed, name in enumerate(("first", "second")):
        save(tmp_path / "images" / f"{name}.png", noise(40, 60, 3, seed=seed))
    mine, bad = save(tmp_path / "mine.png", noise(30, 50, 3)), tmp_path / "bad.png"
    bad.write_bytes(b"")
    with demo_server(tmp_path, "images=images") as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page, requests, failures = browser.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        summary = page.locator("#summary")
        expect(summary).to_contain_text("first.png: 60 x 40 pixels", timeout=60_000)
        expect(summary).to_contain_text("A and B differ in")
        expect(page.get_by_text("down={name:strided,kernel_size:3}").first).to_be_visible()
        expect(page.locator("#legend")).to_contain_text("share B")
        expect(page.locator("img[src*='gradio_api']:visible")).to_have_count(2 + 4)  # samples; image, A, B, difference
        page.locator("#samples button img").nth(1).click()
        expect(summary).to_contain_text("second.png", timeout=60_000)
        page.locator("#upload input[type=file]").set_input_files(mine)
        expect(summary).to_contain_text("mine.png: 50 x 30 pixels", timeout=60_000)
        page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
        page.locator("#upload input[type=file]").set_input_files(bad)
        expect(page.get_by_text("cannot be read")).to_be_visible(timeout=60_000)
        assert not failures
        assert {url.split("/")[2] for url in requests if url.startswith("http")} == {address.split("/")[2]}
        browser.close()
