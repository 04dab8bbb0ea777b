"""Max and average pooling, and max unpooling."""

from torch import Tensor, nn
from torch.nn import functional as F

from unet.network.blocks import conv, covering_kernel
from unet.network.geometry import same_padding
from unet.network.registry import DOWN, UP


def pooling_arguments(name: str, kernel_size: int | None, stride: tuple[int, ...]) -> dict:
    """Return kernel, stride and padding of a pooling layer that divides every axis by its stride exactly."""
    if kernel_size is None:
        return {"kernel_size": stride}
    covering_kernel(f"down={name}", kernel_size, stride)
    return {"kernel_size": kernel_size, "stride": stride, "padding": same_padding(kernel_size, stride)}


@DOWN.register("max")
class MaxDown(nn.Module):
    """Max pooling. x (B, C, *rS) -> (B, C, *S).

    No parameters. Keeps the strongest activation and loses its position in the window. ``kernel_size`` is the stride by
    default; larger windows overlap and are padded with -inf.
    Source: Ranzato et al. 2007, http://yann.lecun.com/exdb/publis/pdf/ranzato-cvpr-07.pdf; in U-Net: arXiv:1505.04597.
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{spatial_dims}d")(**pooling_arguments("max", kernel_size, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@DOWN.register("avg")
class AvgDown(nn.Module):
    """Average pooling. x (B, C, *rS) -> (B, C, *S).

    No parameters. Reduces noise and blurs thin structures. ``kernel_size`` is the stride by default; larger windows
    overlap, and padding is excluded from the average.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition (there with a trained gain).
    """

    def __init__(self, channels: int, spatial_dims: int, stride: tuple[int, ...], kernel_size: int | None = None):
        super().__init__()
        pool = getattr(nn, f"AvgPool{spatial_dims}d")
        self.pool = pool(**pooling_arguments("avg", kernel_size, stride), count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@UP.register("unpool")
class Unpool(nn.Module):
    """Max unpooling to the positions of the skip's maxima, then a convolution.

    x (B, Cin, *S), skip (B, Cout, *rS) -> (B, Cout, *rS). All other positions are zero.

    The skip is the tensor that the encoder pooled, so the indices are computed from it again; of equal values the first
    is used, as in the encoder. With a down operator other than ``max``, the positions do not correspond to values that
    the encoder kept. A pointwise convolution changes Cin to Cout first, because each skip channel has its own indices.
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
        _, indices = max_pool(skip, self.stride, return_indices=True)  # (B, Cout, *S), flat indices into *rS
        # Windows do not overlap, so every index occurs once: scatter is deterministic on every device, unlike
        # torch's max_unpool.
        zeros = x.new_zeros(skip.shape).flatten(2)
        return self.conv(zeros.scatter(2, indices.flatten(2), x.flatten(2)).view(skip.shape))
