"""Export a checkpoint as a folder that runs without this project: ``python scripts/export.py --help`` says how."""

from unet.commands.export import main

if __name__ == "__main__":
    main()
