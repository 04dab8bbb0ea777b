"""Prediction with a trained network: checkpoints, preprocessing, tiles. Needs torch alone."""
