"""Predict with a trained network; see ``python scripts/predict.py --help``."""

from unet.commands.predict import main

if __name__ == "__main__":
    main()
