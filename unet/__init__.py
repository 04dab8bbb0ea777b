"""The U-Net resampling lab: choose how a U-Net downsamples and upsamples. The network needs torch alone.

The names are imported on first use, so that a command line can answer ``--help`` before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet.inference.checkpoint import load
    from unet.network.model import UNet
    from unet.network.registry import CONTEXT, DOWN, UP

__all__ = ["CONTEXT", "DOWN", "UP", "UNet", "__version__", "load"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unet' has no attribute {name!r}")
    return getattr(import_module("unet.inference.checkpoint" if name == "load" else "unet.network.model"), name)
