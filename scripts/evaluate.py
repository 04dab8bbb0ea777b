"""Evaluate a trained network; see ``python scripts/evaluate.py --help``."""

from unet.commands.evaluate import main

if __name__ == "__main__":
    main()
