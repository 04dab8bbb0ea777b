"""Check a data set before it is trained on: ``python scripts/check_data.py --help`` says how."""

from unet.commands.check import main

if __name__ == "__main__":
    main()
