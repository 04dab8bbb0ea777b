"""Encoders of the library timm, whose weights can be pretrained."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError, did_you_mean

INSTALL = "pip install 'unet-resampling-lab[encoders]' (or -e '.[encoders]' in a clone)"
TRIAL_SIZE = (3, 4)
"""Height and width of the image that a network is tried on, in units of its largest stride; unlike any size for which
networks are made, so that one with a fixed size fails."""


class TimmEncoder(nn.Module):
    """A convolutional network of timm as the encoder of a 2-D U-Net.

    image (B, in_channels, H, W) -> its features at ``depth`` levels, fine to coarse: (B, channels[i], H / r, W / r),
    where r is the product of ``strides[: i + 1]``. H and W are multiples of the largest r.

    The weights are random until pretrained ones are loaded into ``model``. The image is multiplied by ``scale`` and
    ``shift`` is added: with pretrained weights, this converts the standardization of the data set into that which the
    weights were trained with.

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
        levels = [index for index, r in enumerate(feature_reductions(name, in_channels)) if r > 1]
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
    """Return the name and the pretrained weights in a config's ``model.encoder``.

    It is a name, or ``{name: ..., pretrained: ...}``. The weights are True for those that timm downloads, or the path
    of a file; False for none. Raises UserError.
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
    """Return a timm model that returns a list of feature maps.

    Raises:
        UserError: timm is not installed, or has no model of this name.
    """
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
    logging.getLogger("timm.models").setLevel(logging.ERROR)  # it lists the weights of the classifier as unused
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="timm")
        return timm.create_model(name, features_only=True, in_chans=in_channels, **options)


def feature_reductions(name: str, in_channels: int) -> list[int]:
    """Return by how much each feature map of a timm model is smaller than the image, fine to coarse.

    The model is tried on the meta device, with an image whose sides differ.

    Raises:
        UserError: it has no feature maps (B, C, H / r, W / r) of images of any size.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            model = create_timm_model(name, in_channels).eval()
            reductions: list[int] = model.feature_info.reduction()
            size = [n * max(reductions) for n in TRIAL_SIZE]
            shapes = [tuple(maps.shape[1:]) for maps in model(torch.empty(1, in_channels, *size))]
    except (RuntimeError, AssertionError) as error:  # of timm: no feature maps, or a fixed size
        reason = " ".join(str(error).split()) or type(error).__name__
        raise no_feature_maps(name, reason) from error
    expected = [
        (channels, *(n // r for n in size))
        for channels, r in zip(model.feature_info.channels(), reductions, strict=True)
    ]
    if shapes != expected:
        raise no_feature_maps(name, f"shapes {shapes} instead of {expected}")
    return reductions


def no_feature_maps(name: str, reason: str) -> UserError:
    """Return the error of a model that cannot be an encoder."""
    return UserError(
        f"model.encoder={name}: has no feature maps of images of any size ({reason}); choose a convolutional network, "
        f"such as resnet34"
    )
