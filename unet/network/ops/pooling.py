"""Pooling windows without parameters, and max-unpooling, which puts each value back where the maximum was."""

from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import conv, covering_kernel
from unet.network.geometry import same_padding
from unet.network.registry import DOWN, UP


def window(name: str, kernel_size: int | None, stride: tuple[int, ...]) -> dict:
    """Kernel, stride and padding of a pooling layer that divides every axis by its stride exactly."""
    if kernel_size is None:
        return {"kernel_size": stride, "stride": stride}
    covering_kernel(f"down={name}", kernel_size, stride)
    return {"kernel_size": kernel_size, "stride": stride, "padding": same_padding(kernel_size, stride)}


@DOWN.register("max")
class MaxDown(nn.Module):
    """The largest value of every window, per channel. x (B, C, *rS) -> (B, C, *S).

    No parameters. Keeps the strongest response and loses where in the window it was; itself a nonlinearity.
    The window is the stride's unless ``kernel_size`` widens it (overlapping windows, padded with -inf).
    Source: Ranzato et al. 2007, http://yann.lecun.com/exdb/publis/pdf/ranzato-cvpr-07.pdf; in U-Net: arXiv:1505.04597.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{spatial_dims}d")(**window("max", kernel_size, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@DOWN.register("avg")
class AvgDown(nn.Module):
    """The mean of every window, per channel. x (B, C, *rS) -> (B, C, *S).

    No parameters. Keeps the local level and smooths noise; thin structures fade in proportion to their share of the
    window. The window is the stride's unless ``kernel_size`` widens it; padding never counts in a mean.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition (there with a trained gain).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        pool = getattr(nn, f"AvgPool{spatial_dims}d")
        self.pool = pool(**window("avg", kernel_size, stride), count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@UP.register("unpool")
class Unpool(nn.Module):
    """Each value returns to where the skip had its maximum, zeros elsewhere; then a 3-wide convolution.

    x (B, Cin, *S), skip (B, Cout, *rS) -> (B, Cout, *rS).

    The skip *is* the tensor the encoder pooled, so the indices are found again from it rather than carried along; of
    equal values the first wins, as in the encoder. After a down operator other than ``max`` the positions are still
    those of the skip's maxima, which the encoder then did not use: it runs, and means less.
    A 1-wide convolution brings Cin to Cout first, because indices exist per skip channel.
    Source: Badrinarayanan et al. 2017, SegNet, https://arxiv.org/abs/1511.00561.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, stride: tuple[int, ...]):
        super().__init__()
        self.stride = stride
        self.narrow = conv(spatial_dims)(in_channels, out_channels, 1)
        self.conv = conv(spatial_dims)(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.narrow(x)
        max_pool = getattr(F, f"max_pool{len(self.stride)}d")
        _, indices = max_pool(skip, self.stride, return_indices=True)  # (B, Cout, *S), flat places in *rS
        # Windows do not overlap, so no place is written twice: scatter is exact, and deterministic on every device
        # (torch's max_unpool is not).
        empty = x.new_zeros(skip.shape).flatten(2)
        return self.conv(empty.scatter(2, indices.flatten(2), x.flatten(2)).view(skip.shape))
