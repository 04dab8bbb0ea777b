"""Time the network, its data loader and its operators: ``python scripts/benchmark.py --help`` says how."""

from unet.commands.benchmark import main

if __name__ == "__main__":
    main()
