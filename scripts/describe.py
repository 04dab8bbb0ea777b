"""Describe a network level by level: ``python scripts/describe.py --help`` says how."""

from unet.commands.describe import main

if __name__ == "__main__":
    main()
