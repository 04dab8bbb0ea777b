"""Take screenshots of TensorBoard's tabs for the README with a headless browser.

    python scripts/maintain/screenshots.py outputs/SWEEP docs/pictures

Writes tensorboard_<tab>.png for every tab. Needs Chromium or Chrome on the PATH.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from tensorboard import program

from unet.errors import UserError
from unet.io.atomic import atomic_write

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TABS = {"hparams": (1500, 900), "custom_scalars": (1500, 1000), "images": (1500, 1100)}
"""Width and height of every tab's screenshot."""
NUM_COLORS = 128
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
)


def find_browser() -> str:
    """Return the path of an installed browser. Raises UserError if there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UserError(f"no browser found on the PATH; expected one of {', '.join(BROWSERS)}: install Chromium")
    return path


def start_tensorboard(folder: Path) -> str:
    """Start TensorBoard on the loopback interface until this process ends, and return its address."""
    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(folder), "--port", "0", "--load_fast", "false"])
    return server.launch()


def take_screenshot(browser: str, address: str, size: tuple[int, int], path: Path, seconds: int) -> None:
    """Write a screenshot of a page after it loaded data for ``seconds``. Raises UserError if the browser fails."""
    with tempfile.TemporaryDirectory() as profile:
        screenshot = Path(profile) / "screenshot.png"
        command = [
            browser, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={1000 * seconds}", f"--screenshot={screenshot}", "--no-sandbox", address,
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not screenshot.is_file():
            message = " ".join(result.stderr.split())[-300:]
            raise UserError(f"{path}: the browser wrote no screenshot (status {result.returncode}): {message}")
        with atomic_write(path) as file:  # quantized, at a third of the size
            Image.open(screenshot).convert("RGB").quantize(NUM_COLORS).save(file, "PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a sweep or a run with TensorBoard events")
    parser.add_argument("output", type=Path, help="folder of the screenshots")
    parser.add_argument("--seconds", type=int, default=60, help="time for a page to load its data (default: 60)")
    args = parser.parse_args()
    try:
        if not any(args.folder.rglob("events.out.tfevents.*")):
            raise UserError(f"{args.folder}: no TensorBoard events found; expected the folder of a run or a sweep")
        browser = find_browser()
        args.output.mkdir(parents=True, exist_ok=True)
        address = start_tensorboard(args.folder)
        for tab, size in TABS.items():
            path = args.output / f"tensorboard_{tab}.png"
            take_screenshot(browser, f"{address}#{tab}", size, path, args.seconds)
            print(path)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
