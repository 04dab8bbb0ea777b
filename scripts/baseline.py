"""Score the colour of each pixel alone: ``python scripts/baseline.py --help`` says how."""

from unet.commands.baseline import main

if __name__ == "__main__":
    main()
