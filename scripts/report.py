"""Report on a sweep: ``python scripts/report.py --help`` says how."""

from unet.commands.report import main

if __name__ == "__main__":
    main()
