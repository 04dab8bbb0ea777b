"""Predict with a trained network: ``python scripts/predict.py --help`` says how."""

from unet.commands.predict import main

if __name__ == "__main__":
    main()
