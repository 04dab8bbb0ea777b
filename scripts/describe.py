"""Describe a network level by level; see ``python scripts/describe.py --help``."""

from unet.commands.describe import main

if __name__ == "__main__":
    main()
