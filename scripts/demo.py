"""A page in the browser to try a trained network on pictures, or to compare two.

    python scripts/demo.py ckpt=outputs/RUN/checkpoints/best.ckpt
    python scripts/demo.py ckpt=outputs/RUN/checkpoints/best.ckpt images=photos port=8000
    python scripts/demo.py 'ckpt=[outputs/MAX/checkpoints/best.ckpt,outputs/STRIDED/checkpoints/best.ckpt]'

It is on this machine alone, and fetches nothing. --help lists the keys; docs/demo.md says more. Ctrl-C ends it.
"""

import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig, OmegaConf

from unet.command import script, verbatim
from unet.errors import UserError


@script("demo")
def main(config: DictConfig) -> None:
    if config.ckpt is None:
        raise UserError("ckpt: is required; see python scripts/demo.py --help")
    for key in ("max_upload_mb", "max_megapixels"):
        if isinstance(config[key], bool) or not isinstance(config[key], int | float) or not config[key] > 0:
            raise UserError(f"{key}: expected a number above 0, found {config[key]!r}")
    if find_spec("gradio") is None:
        raise UserError("the page is made with Gradio, which is not installed; run: pip install -e '.[demo]'")

    from unet.demo.server import bound

    with bound(str(config.host), config.port) as listening:
        shown(config, listening)


def shown(config: DictConfig, listening: socket.socket) -> None:
    """The page, until Ctrl-C ends it."""
    from unet.apply import PredictOptions
    from unet.demo.networks import networks_of
    from unet.demo.server import loopback, serve, spare_folder
    from unet.hardware import settle

    device = settle(str(config.device), config.threads)
    given = list(config.ckpt) if OmegaConf.is_list(config.ckpt) else [config.ckpt]
    paths = [Path(str(path)).expanduser() for path in given]
    networks = networks_of(paths, device)

    from unet.demo.pictures import from_files

    images = None if config.images is None else str(config.images)
    choices = of_run(paths[0]) if images is None else from_files(images, config.max_megapixels)
    with spare_folder():
        from unet.demo.page import Page

        page = Page(networks, choices, PredictOptions(), config.max_megapixels).build()
        host = str(config.host)
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        if not loopback(host):
            print("everyone who reaches this machine can use the page: it has no password", flush=True)
        with suppress(KeyboardInterrupt):
            serve(page, listening, host, config.max_upload_mb)
    print("\nended")


def of_run(checkpoint: Path) -> list[Any]:
    """Pictures of the checkpoint's run; none where its data cannot be found, which the terminal then says."""
    from unet.demo.pictures import from_run

    try:
        return from_run(checkpoint)
    except UserError as error:
        print(f"no pictures to pick from ({error}); images=FOLDER gives some", flush=True)
        return []


if __name__ == "__main__":
    paths = ("ckpt", "images") if not any(one.startswith("ckpt=[") for one in sys.argv) else ("images",)
    sys.argv[1:] = verbatim(sys.argv[1:], paths)
    main()
