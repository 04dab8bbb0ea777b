"""Print the validation scores of runs against the seconds of their training; see ``python scripts/curve.py --help``."""

from unet.commands.curve import main

if __name__ == "__main__":
    main()
