"""Report on a sweep; see ``python scripts/report.py --help``."""

from unet.commands.report import main

if __name__ == "__main__":
    main()
