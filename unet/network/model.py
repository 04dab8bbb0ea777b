"""The U-Net: an encoder and a decoder with skip connections (Ronneberger et al. 2015)."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

import unet.network.ops  # noqa: F401  (importing the operators registers them)
from unet.errors import UserError
from unet.network.blocks import BLOCKS, conv, look_up
from unet.network.encoders import TimmEncoder
from unet.network.geometry import crop, pad, padding_to_multiple, times
from unet.network.registry import CONTEXT, DOWN, UP, Spec
from unet.network.skips import SKIPS

SMALL_BOTTLENECK = 8
"""Minimum size of the bottleneck along an axis, in pixels; a warning is issued below it."""

MAX_WIDTH = 2**16
"""Maximum number of channels: the weights of such a convolution take 150 GiB."""


class UNet(nn.Module):
    """A U-Net with selectable downsampling and upsampling operators, for images of 1, 2 or 3 spatial axes.

    image (B, in_channels, *S) -> logits (B, num_classes, *S), for any S of at least the total stride along each axis.
    The input is padded by replication to a multiple of the total stride, and the logits are cropped to its size.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        width: channels at full resolution, doubled at every level; or a list with depth + 1 numbers, one per level.
        depth: number of downsampling stages.
        down: an operator of ``DOWN``: a name or ``{"name": ..., option: value}``; or a list, one per stage, fine to
            coarse.
        up: an operator of ``UP``, in the same forms as ``down`` (a list is also fine to coarse).
        context: the module in the bottleneck, an operator of ``CONTEXT``.
        skip: how the decoder uses skip connections: ``concat``, ``add``, ``none`` or ``attention``.
        block: the convolutions of every level: ``plain`` or ``residual``.
        encoder: ``none``, or the name of a network of timm (2-D only) that takes the place of the down operators and
            the blocks behind them; it sets strides and channels, and ``width`` is that of full resolution alone.
        stride: downsampling factor of every stage; or a list, one per stage, each a number or one number per axis.
        spatial_dims: number of spatial axes, 1, 2 or 3.
        norm: normalization: ``batch``, ``instance``, ``group`` or ``none``.
        act: activation: ``relu``, ``leaky_relu``, ``elu``, ``gelu`` or ``silu``.
        dropout: probability of dropping a channel at the end of every block, 0 to below 1.
        deep_supervision: whether the network in training mode returns a list: the logits, then those of the coarser
            levels of the decoder but the last, for :func:`unet.task.losses.deep_loss`. It needs three levels.
        checkpointing: whether training keeps the outputs of the levels and computes the activations in them again in
            the backward pass: less memory, a third to a half more time. An encoder of timm keeps all.

    Raises:
        UserError: an argument is invalid, or an input has the wrong number of channels or axes or is too small.

    Source: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597. The defaults are the network of that paper with
    same padding and batch norm.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 2,
        width: int | Sequence[int] = 64,
        depth: int = 4,
        down: Spec | Sequence[Spec] = "max",
        up: Spec | Sequence[Spec] = "transposed",
        context: Spec = "none",
        skip: str = "concat",
        block: str = "plain",
        encoder: str = "none",
        stride: int | Sequence[int | Sequence[int]] = 2,
        spatial_dims: int = 2,
        norm: str = "batch",
        act: str = "relu",
        dropout: float = 0.0,
        deep_supervision: bool = False,
        checkpointing: bool = False,
    ):
        super().__init__()
        check_integer("depth", depth, least=0)
        check_integer("in_channels", in_channels, least=1)
        check_integer("num_classes", num_classes, least=1)
        if isinstance(spatial_dims, bool) or spatial_dims not in (1, 2, 3):
            raise UserError(f"model.spatial_dims: expected 1, 2 or 3, found {spatial_dims!r}")
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise UserError(f"model.dropout: expected a probability of at least 0 and below 1, found {dropout!r}")
        if deep_supervision and depth < 3:
            raise UserError(f"model.deep_supervision needs a model.depth of at least 3, found {depth}")
        self.in_channels, self.spatial_dims, self.norm, self.act, self.skip = in_channels, spatial_dims, norm, act, skip
        self.encoder_name = None if encoder == "none" else encoder  # of timm
        shared = {"norm": norm, "act": act}
        join = look_up(SKIPS, "skip", skip)
        make_block = partial(look_up(BLOCKS, "block", block), spatial_dims=spatial_dims, dropout=dropout, **shared)
        timm_encoder = None
        if encoder == "none":
            self.widths = level_widths(width, depth)
            self.strides = [stage_stride(value, spatial_dims) for value in per_stage("stride", stride, depth)]
        else:
            check_encoder_settings(encoder, down, stride, width, spatial_dims)
            timm_encoder = TimmEncoder(encoder, in_channels, depth)
            self.widths = [width, *timm_encoder.channels]
            self.strides = [(r, r) for r in timm_encoder.strides]
        self.total_stride = tuple(math.prod(axis) for axis in zip(*self.strides, strict=True)) or (1,) * spatial_dims

        self.stem = make_block(in_channels, self.widths[0])
        self.downs, blocks = nn.ModuleList(), nn.ModuleList()
        self.encoder = blocks if timm_encoder is None else timm_encoder
        self.ups, self.joins, self.decoder = (nn.ModuleList() for _ in range(3))
        downs, ups = (per_stage(key, value, depth) for key, value in (("down", down), ("up", up)))
        for level, (fine, coarse) in enumerate(pairwise(self.widths)):
            resampling = {"spatial_dims": spatial_dims, "stride": self.strides[level]}
            if timm_encoder is None:
                self.downs.append(DOWN.build(downs[level], shared, channels=fine, **resampling))
                blocks.append(make_block(fine, coarse))
            self.ups.append(UP.build(ups[level], shared, in_channels=coarse, out_channels=fine, **resampling))
            self.joins.append(join(fine, spatial_dims, norm))
            self.decoder.append(make_block(join.factor * fine, fine))
        self.context = CONTEXT.build(context, shared, channels=self.widths[-1], spatial_dims=spatial_dims)
        self.head = conv(spatial_dims)(self.widths[0], num_classes, 1)
        supervised = self.widths[1 : depth - 1] if deep_supervision else []
        self.coarse_heads = nn.ModuleList(conv(spatial_dims)(channels, num_classes, 1) for channels in supervised)
        self.checkpointing, self._warned = checkpointing, False

    def forward(self, image: Tensor) -> Any:
        size = image.shape[2:]
        if not torch.compiler.is_compiling():  # a traced size must not become a condition on every later size
            self.check(image)
        padding = padding_to_multiple(size, self.total_stride)
        *skips, x = self.encode(pad(image, padding))
        x = self.context(x)
        coarse_logits, supervised = [], len(self.coarse_heads) if self.training else 0
        stages = list(zip(self.ups, self.joins, self.decoder, skips, strict=True))
        for level, (up, join, block, skip) in reversed(list(enumerate(stages))):
            x = self.run_stage(partial(decode_stage, up, join, block), x, skip)
            if 0 < level <= supervised:
                coarse_logits.insert(0, self.coarse_heads[level - 1](x))
        logits = crop(self.head(x), padding, size)
        return [logits, *coarse_logits] if coarse_logits else logits

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of every level, fine to coarse; the image's size is a multiple of the total stride."""
        features = [self.run_stage(self.stem, image)]
        if isinstance(self.encoder, TimmEncoder):
            return features + self.encoder(image)
        for down, block in zip(self.downs, self.encoder, strict=True):
            features.append(self.run_stage(partial(encode_stage, down, block), features[-1]))
        return features

    def run_stage(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Return ``stage(*inputs)``; with ``checkpointing`` its activations are not kept for the backward pass."""
        if not self.checkpointing or not self.training or not torch.is_grad_enabled():
            return stage(*inputs)
        contexts: dict[str, Any] = {"context_fn": partial(checkpoint_contexts, self)}
        if torch.compiler.is_compiling():  # it does not support contexts, and updates running statistics once
            contexts = {}
        return checkpoint(stage, *inputs, use_reentrant=False, **contexts)

    def check(self, image: Tensor) -> None:
        """Raise UserError for an invalid input; warn once if the bottleneck is too small for small objects."""
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise UserError(
                f"the network takes (B, {self.in_channels}, {', '.join('*' * self.spatial_dims)}), a batch of images "
                f"with {self.in_channels} channels and {self.spatial_dims} spatial axes; found {tuple(image.shape)}"
            )
        size, least = image.shape[2:], self.total_stride
        if any(n < m for n, m in zip(size, least, strict=True)):
            raise UserError(
                f"input of {times(size)} is too small for depth {len(self.strides)}: "
                f"the smallest that works is {times(least)}; use larger images or a smaller model.depth"
            )
        bottleneck = [-(-n // m) for n, m in zip(size, least, strict=True)]
        values = math.prod(bottleneck) * (image.shape[0] if self.norm == "batch" else 1)
        # Batch norm computes statistics from the input in training only, instance norm always.
        if values == 1 and (self.norm == "instance" or (self.norm == "batch" and self.training)):
            raise UserError(
                f"{'training with ' if self.training else ''}model.norm={self.norm} on {times(size)} leaves a "
                f"single value per channel at the bottleneck, which cannot be normalized; the smallest that works is "
                f"{times(m + 1 for m in least)}, or use model.norm=group"
            )
        if min(bottleneck) < SMALL_BOTTLENECK and not self._warned:
            self._warned = True
            warnings.warn(
                f"the bottleneck is {times(bottleneck)} for an input of {times(size)}: "
                f"below {SMALL_BOTTLENECK} pixels along an axis, small objects may be lost; "
                f"consider a smaller model.depth or larger crops",
                stacklevel=3,
            )


def encode_stage(down: nn.Module, block: nn.Module, x: Tensor) -> Tensor:
    """Return the features of the next coarser level."""
    return block(down(x))


def decode_stage(up: nn.Module, join: nn.Module, block: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Return the features of the decoder at the level of ``skip``."""
    return block(join(skip, up(x, skip)))


def checkpoint_contexts(net: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts in which activations are computed, and computed again in the backward pass."""
    return nullcontext(), keep_running_statistics(net)


@contextmanager
def keep_running_statistics(net: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norm unchanged while activations are computed again."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    saved = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    counts = [None if count is None else count.clone() for _, _, count in saved]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for (norm, momentum, buffer), count in zip(saved, counts, strict=True):
            norm.momentum = momentum
            if buffer is not None and count is not None:
                buffer.copy_(count)


def check_encoder_settings(encoder: Any, down: Any, stride: Any, width: Any, spatial_dims: int) -> None:
    """Raise UserError where other settings contradict an encoder that sets strides and channels itself."""
    if not isinstance(encoder, str):
        raise UserError(f"model.encoder: expected none or the name of a timm model, found {encoder!r}")
    if spatial_dims != 2:
        raise UserError(f"model.encoder={encoder} is for images of 2 axes, and these have {spatial_dims}; leave it out")
    if down != "max" or stride != 2:
        key, value = ("down", down) if down != "max" else ("stride", stride)
        raise UserError(f"model.{key}={value}: model.encoder={encoder} has its own downsampling; leave out one of them")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise UserError(
            f"model.width={width}: expected the channels at full resolution, a number of at least 1, since "
            f"model.encoder={encoder} sets those of the other levels"
        )


def level_widths(width: int | Sequence[int], depth: int) -> list[int]:
    """Return the channels of every level: ``width`` doubled at every level, or the validated list."""
    if isinstance(width, int):
        check_integer("width", width, least=1)
        if depth >= MAX_WIDTH.bit_length() or width * 2**depth > MAX_WIDTH:
            raise UserError(
                f"model.depth={depth}: model.width={width} doubled at every level is more than {MAX_WIDTH:,} channels "
                f"at the bottleneck; reduce one of them, or give a width for every level"
            )
        return [width * 2**level for level in range(depth + 1)]
    if isinstance(width, str) or not isinstance(width, Sequence) or len(width) != depth + 1:
        raise UserError(
            f"model.width: expected a number or {depth + 1} numbers (depth {depth} has {depth + 1} levels), "
            f"found {width!r}"
        )
    for value in width:
        check_integer("width", value, least=1)
    return list(width)


def per_stage(key: str, value: Any, depth: int) -> list[Any]:
    """Return a list with one setting per stage; a single setting is repeated."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != depth:
            raise UserError(
                f"model.{key}: expected one value or {depth} (one per stage, fine to coarse), found {len(value)}"
            )
        return list(value)
    return [value] * depth


def stage_stride(value: Any, spatial_dims: int) -> tuple[int, ...]:
    """Return the stride of a stage as a tuple with one integer per axis; raise UserError if it is invalid."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    stride: tuple[Any, ...] = tuple(value) if is_list else (value,) * spatial_dims
    if len(stride) != spatial_dims:
        raise UserError(f"model.stride: a stage has {spatial_dims} axes, found {list(value)}")
    for r in stride:
        check_integer("stride", r, least=1)
    return stride


def check_integer(key: str, value: Any, least: int) -> None:
    """Raise UserError unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"model.{key}: expected an integer of at least {least}, found {value!r}")
