"""The commands by name: ``unet-lab train model.down=strided``, or ``python -m unet train ...``."""

import sys
from importlib import import_module

from unet import __version__
from unet.errors import did_you_mean

COMMANDS = {
    "train": "train a U-Net with the resampling you choose; with -m a sweep",
    "predict": "predict images, volumes or sequences of any size with a trained network",
    "evaluate": "score a trained network again, on any split of any data",
    "check": "check a data set before training",
    "describe": "describe a network level by level: sizes, receptive fields, parameters, FLOPs, memory",
    "report": "report on a sweep: which arms differ, by how much, at what cost",
    "curve": "print the validation scores of runs against the seconds of their training",
    "export": "export a checkpoint as a folder that runs without this project",
    "demo": "try a trained network, or compare two, on a local page",
    "baseline": "score a per-pixel colour histogram classifier",
    "benchmark": "time the network and its peers, every layer or operator, or the data loader",
}
"""The modules of ``unet.commands`` and the purpose of each."""


def main() -> None:
    """Run the command whose name is the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: unet-lab COMMAND [KEY=VALUE ...]\n")
        print(*(f"  {command:10} {purpose}" for command, purpose in COMMANDS.items()), sep="\n")
        print("\nunet-lab COMMAND --help lists its keys; unet-lab --version")
    elif name == "--version":
        print(f"unet-lab {__version__}")
    elif name in COMMANDS:
        del sys.argv[1]
        import_module(f"unet.commands.{name}").main()
    else:
        valid = f"{did_you_mean(name, COMMANDS)} (valid: {', '.join(COMMANDS)})"
        print(f"error: {name}: no such command{valid}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
