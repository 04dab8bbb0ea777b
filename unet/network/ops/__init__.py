"""The operators, one family a file, a down beside the up that undoes it. Importing this package registers them all.

The tables list them in the order of these imports, the classical ones first.
"""
# ruff: noqa: I001

from unet.network.ops import pooling
from unet.network.ops import convolution
from unet.network.ops import interpolation
from unet.network.ops import blur
from unet.network.ops import subpixel
from unet.network.ops import wavelet
from unet.network.ops import weighted
from unet.network.ops import reassembly
from unet.network.ops import context

__all__ = [
    "blur", "context", "convolution", "interpolation", "pooling", "reassembly", "subpixel", "wavelet", "weighted"
]  # fmt: skip
