"""Score a trained network again: ``python scripts/evaluate.py --help`` says how."""

from unet.commands.evaluate import main

if __name__ == "__main__":
    main()
