"""The U-Net resampling lab: choose how a U-Net shrinks and how it grows. The network needs torch alone."""

from unet.model import UNet
from unet.registry import CONTEXT, DOWN, UP

__all__ = ["CONTEXT", "DOWN", "UP", "UNet"]
