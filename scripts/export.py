"""Export a checkpoint as a folder that runs without this project; see ``python scripts/export.py --help``."""

from unet.commands.export import main

if __name__ == "__main__":
    main()
