"""What one number for a split does not say: where a network is wrong, and what its resampling had to do with it."""

from unet.diagnostics.diagnose import diagnose

__all__ = ["diagnose"]
