"""Take screenshots of TensorBoard's tabs for the README with a headless browser.

    python scripts/maintain/screenshots.py outputs/SWEEP docs/pictures

Writes tensorboard_<tab>.png for every tab. Needs Chromium or Chrome on the PATH, and playwright (the extra ``dev``).
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from tensorboard import program

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TABS = {"hparams": (1500, 900), "custom_scalars": (1500, 1000), "images": (1500, 1100)}
"""Width and height of every tab's screenshot."""
NUM_COLORS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a sweep or a run with TensorBoard events")
    parser.add_argument("output", type=Path, help="folder of the screenshots")
    parser.add_argument("--seconds", type=int, default=60, help="time for a page to load its data (default: 60)")
    args = parser.parse_args()
    if not any(args.folder.rglob("events.out.tfevents.*")):
        parser.error(f"{args.folder}: no TensorBoard events found; expected the folder of a run or a sweep")
    args.output.mkdir(parents=True, exist_ok=True)
    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(args.folder), "--port", "0", "--load_fast", "false"])
    address = server.launch()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=next(filter(None, map(shutil.which, BROWSERS)), None))
        for tab, (width, height) in TABS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{address}#{tab}")
            page.wait_for_timeout(1000 * args.seconds)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(NUM_COLORS)
            path = args.output / f"tensorboard_{tab}.png"
            picture.save(path, optimize=True)  # quantized, at a third of the size
            print(path)


if __name__ == "__main__":
    main()
