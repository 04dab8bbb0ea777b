"""The operators, one family a file, a down beside the up that undoes it. Importing this package registers them all."""

from unet.ops import blur, context, convolution, interpolation, pooling, reassembly, subpixel, wavelet, weighted

__all__ = [
    "blur", "context", "convolution", "interpolation", "pooling", "reassembly", "subpixel", "wavelet", "weighted"
]  # fmt: skip
