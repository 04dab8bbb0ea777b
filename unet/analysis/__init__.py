"""Measurements of a network: sizes, receptive fields, cost, feature maps."""
