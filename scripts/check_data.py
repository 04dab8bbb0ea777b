"""Check a data set before training; see ``python scripts/check_data.py --help``."""

from unet.commands.check import main

if __name__ == "__main__":
    main()
