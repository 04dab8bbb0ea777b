"""Time the network, the data loader and the operators; see ``python scripts/benchmark.py --help``."""

from unet.commands.benchmark import main

if __name__ == "__main__":
    main()
