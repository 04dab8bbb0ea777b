"""Pictures of TensorBoard's tabs, as the README shows them: TensorBoard is started, and a headless browser looks at it.

    python scripts/maintain/screenshots.py outputs/SWEEP docs/pictures

Writes tensorboard_<tab>.png for each of the tabs that a sweep is read by. Needs Chromium or Chrome on the PATH.
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
"""Width and height in which each is shown."""
COLOURS = 128
QUIET = ("--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking")


def browser() -> str:
    """The first browser there is.

    Raises:
        UserError: none is.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise UserError(f"no browser found on the PATH; expected one of {', '.join(BROWSERS)}: install Chromium")
    return found


def serve(folder: Path) -> str:
    """The address of a TensorBoard of ``folder`` on this machine alone; it ends with this process."""
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(folder), "--port", "0", "--load_fast", "false"])
    return board.launch()


def shoot(chosen: str, address: str, size: tuple[int, int], path: Path, seconds: int) -> None:
    """One picture of a page by the browser ``chosen``, after as many seconds of its own time as its data take to load.

    Raises:
        UserError: the browser left none.
    """
    with tempfile.TemporaryDirectory() as profile:
        picture = Path(profile) / "picture.png"
        command = [
            chosen, *QUIET, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={1000 * seconds}", f"--screenshot={picture}", "--no-sandbox", address,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not picture.is_file():
            said = " ".join(done.stderr.split())[-300:]
            raise UserError(f"{path}: the browser left no picture (status {done.returncode}): {said}")
        with atomic_write(path) as file:  # in few colours: a third of the size
            Image.open(picture).convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep or a run, with TensorBoard's events in it")
    parser.add_argument("output", type=Path, help="where the pictures go")
    parser.add_argument("--seconds", type=int, default=60, help="given to a page to load its data (default: 60)")
    arguments = parser.parse_args()
    try:
        if not any(arguments.folder.rglob("events.out.tfevents.*")):
            raise UserError(f"{arguments.folder}: no TensorBoard events in it; expected the folder of a run or a sweep")
        chosen = browser()
        arguments.output.mkdir(parents=True, exist_ok=True)
        address = serve(arguments.folder)
        for tab, size in TABS.items():
            path = arguments.output / f"tensorboard_{tab}.png"
            shoot(chosen, f"{address}#{tab}", size, path, arguments.seconds)
            print(path)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
