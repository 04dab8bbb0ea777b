"""The resampling operators, one family per file. Importing this package registers all of them.

The registries and the README's tables list the operators in the order of these imports.
"""
# ruff: noqa: I001, F401

from unet.network.ops import pooling
from unet.network.ops import convolution
from unet.network.ops import interpolation
from unet.network.ops import blur
from unet.network.ops import subpixel
from unet.network.ops import wavelet
from unet.network.ops import weighted
from unet.network.ops import reassembly
from unet.network.ops import context
