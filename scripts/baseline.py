"""Score a per-pixel colour histogram classifier; see ``python scripts/baseline.py --help``."""

from unet.commands.baseline import main

if __name__ == "__main__":
    main()
