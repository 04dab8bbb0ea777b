"""Encoders of the library timm, whose weights can be pretrained."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError, did_you_mean

INSTALL = "pip install 'unet-resampling-lab[encoders]' (or -e '.[encoders]' in a clone)"
PROBE_STRIDES = 3
"""Side of the image that a network is tried on, in units of its largest stride: no common fixed input size."""


class TimmEncoder(nn.Module):
    """A convolutional network of timm as the encoder of a 2-D U-Net.

    image (B, in_channels, H, W) -> its features at ``depth`` levels, fine to coarse: (B, channels[i], H / r, W / r),
    where r is the product of ``strides[: i + 1]``. H and W are multiples of the largest r.

    The weights are random until pretrained ones are loaded into ``model``. ``scale`` and ``shift``, applied to the
    image, are then what turns this project's standardization into the one that the weights were trained with.

    Args:
        name: a model of ``timm.list_models()``, such as ``resnet34``.
        depth: the number of levels, from the finest feature map that is smaller than the image.

    Raises:
        UserError: timm is not installed, has no model of this name, or the model has no ``depth`` feature maps for
            images of any size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, in_channels: int, depth: int):
        super().__init__()
        with torch.device("meta"):
            probe = create_timm_model(name, in_channels)
            check_feature_maps(name, probe, in_channels)
        levels = [index for index, r in enumerate(probe.feature_info.reduction()) if r > 1]
        if not 1 <= depth <= len(levels):
            raise UserError(f"model.depth={depth}: expected 1 to {len(levels)}, the levels of model.encoder={name}")
        self.levels = tuple(levels[:depth])
        self.model = create_timm_model(name, in_channels, out_indices=self.levels)
        self.channels: list[int] = self.model.feature_info.channels()
        reductions: list[int] = self.model.feature_info.reduction()
        self.strides = [r // finer for finer, r in zip([1, *reductions], reductions, strict=False)]
        self.register_buffer("scale", torch.ones(1, in_channels, 1, 1))
        self.register_buffer("shift", torch.zeros(1, in_channels, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.model(image * self.scale + self.shift)


def split_encoder(value: Any) -> tuple[str, bool | str]:
    """Return name and pretrained weights of a config's ``model.encoder``: a name, or ``{name: ..., pretrained: ...}``.

    The weights are True for those that timm downloads, or the path of a file; False for none. Raises UserError.
    """
    if isinstance(value, str):
        return value, False
    if not isinstance(value, Mapping) or "name" not in value or not value.keys() <= {"name", "pretrained"}:
        raise UserError(
            f"model.encoder: expected none, a name such as resnet34, or {{name: resnet34, pretrained: true}}, found "
            f"{value!r}"
        )
    name, pretrained = value["name"], value.get("pretrained", False)
    if not isinstance(pretrained, bool | str):
        raise UserError(f"model.encoder.pretrained: expected true, false or a file's path, found {pretrained!r}")
    if not isinstance(name, str) or (name == "none" and pretrained):
        raise UserError(f"model.encoder.name: expected the name of a timm model, such as resnet34, found {name!r}")
    return name, pretrained


def create_timm_model(name: str, in_channels: int, **options: Any) -> Any:
    """Return a timm model that returns a list of feature maps. Raises UserError if there is none of this name."""
    try:
        import timm
    except ImportError:
        raise UserError(f"model.encoder={name} needs timm, which is not installed; run: {INSTALL}") from None
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise UserError(
            f"model.encoder: timm {timm.__version__} has no model {name!r}{hint} (python -c 'import timm; "
            f"print(timm.list_models())' lists them); expected none or such a name"
        )
    try:
        logging.getLogger("timm.models").setLevel(logging.ERROR)  # it lists the weights of the classifier as unused
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="timm")
            return timm.create_model(name, features_only=True, in_chans=in_channels, **options)
    except (RuntimeError, NotImplementedError, AttributeError, AssertionError, TypeError) as error:
        if options.get("pretrained"):  # the weights do not load
            raise
        raise no_feature_maps(name, str(error)) from error


def check_feature_maps(name: str, model: Any, in_channels: int) -> None:
    """Raise UserError unless a model on the meta device has feature maps (B, C, H / r, W / r) of images of any size."""
    largest = max(model.feature_info.reduction())
    size = (PROBE_STRIDES * largest, (PROBE_STRIDES + 1) * largest)
    try:
        with torch.no_grad():
            maps = model.eval()(torch.empty(1, in_channels, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise no_feature_maps(name, str(error)) from error
    info = zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True)
    if [tuple(x.shape[1:]) for x in maps] != [(channels, *(n // r for n in size)) for channels, r in info]:
        raise no_feature_maps(name, "their shapes are others than channels and size")


def no_feature_maps(name: str, reason: str) -> UserError:
    return UserError(
        f"model.encoder={name}: has no feature maps of images of any size ({' '.join(reason.split()) or 'no reason'}); "
        f"choose a convolutional network, such as resnet34"
    )
