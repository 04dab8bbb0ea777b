"""A page in the browser to try a trained network on images, or to compare two.

    python scripts/demo.py ckpt=outputs/RUN/checkpoints/best.ckpt
    python scripts/demo.py ckpt=outputs/RUN/checkpoints/best.ckpt images=photos port=8000
    python scripts/demo.py 'ckpt=[outputs/MAX/checkpoints/best.ckpt,outputs/STRIDED/checkpoints/best.ckpt]'

Only this machine can open it, and it downloads nothing. --help lists the keys; see docs/demo.md. Ctrl-C ends it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a clone, uninstalled

from omegaconf import DictConfig

from unet.command import script, verbatim


@script("demo")
def main(config: DictConfig) -> None:
    from unet.demo.app import launch_demo

    launch_demo(config)


if __name__ == "__main__":
    paths = ("ckpt", "images") if not any(one.startswith("ckpt=[") for one in sys.argv) else ("images",)
    sys.argv[1:] = verbatim(sys.argv[1:], paths)
    main()
