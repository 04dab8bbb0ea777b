"""The operators, one family a file, a down beside the up that undoes it. Importing this package registers them all."""

from unet.ops import context, convolution, interpolation, pooling

__all__ = ["context", "convolution", "interpolation", "pooling"]
