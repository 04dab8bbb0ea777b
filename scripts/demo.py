"""Try a trained network in the browser; see ``python scripts/demo.py --help``."""

from unet.commands.demo import main

if __name__ == "__main__":
    main()
