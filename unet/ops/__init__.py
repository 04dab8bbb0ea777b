"""The operators, one family a file, a down beside the up that undoes it. Importing this package registers them all.

The tables list them in the order of these imports, the classical ones first.
"""
# ruff: noqa: I001

from unet.ops import pooling, convolution, interpolation, blur, subpixel, wavelet, weighted, reassembly, context

__all__ = [
    "blur", "context", "convolution", "interpolation", "pooling", "reassembly", "subpixel", "wavelet", "weighted"
]  # fmt: skip
