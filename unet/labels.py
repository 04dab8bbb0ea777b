"""What a label may be, said once for data, losses, metrics and pictures."""

IGNORE_INDEX = 255
"""The label left out of loss and metrics, everywhere."""
