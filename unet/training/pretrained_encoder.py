"""Load pretrained weights into the encoder of a network."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unet.errors import UserError
from unet.network.encoders import TimmEncoder, create_timm_model, split_encoder
from unet.network.model import UNet


def load_pretrained_encoder(net: UNet, setting: Any, description: Mapping[str, Any]) -> list[str]:
    """Load the pretrained weights that a config's ``model.encoder`` names, and return the names of the loaded tensors.

    8-bit images of three channels are then standardized as the weights expect: the encoder's ``scale`` and ``shift``
    follow from that and from ``mean`` and ``std`` of the ``description``. Other images keep the standardization of
    their data set, and timm adapts the first convolution to another number of channels.

    Raises:
        UserError: the file is missing or does not fit, or timm cannot download the weights.
    """
    name, pretrained = split_encoder(setting)
    encoder = net.encoder
    if not pretrained or not isinstance(encoder, TimmEncoder):
        return []
    options, origin = {}, f"of {name}"
    if isinstance(pretrained, str):
        path = Path(pretrained).expanduser()
        if not path.is_file():
            raise UserError(f"model.encoder.pretrained={pretrained}: no such file; expected weights of timm's {name}")
        options, origin = {"pretrained_cfg_overlay": {"file": str(path)}}, f"in {path}"
    try:
        source = create_timm_model(name, net.in_channels, pretrained=True, out_indices=encoder.levels, **options)
        encoder.model.load_state_dict(source.state_dict())
    except Exception as error:  # of the download, of the file's format, or of other shapes, by four libraries
        raise UserError(
            f"model.encoder: the pretrained weights {origin} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            f"expected weights of timm's {name}: set pretrained to the path of a file, or to false"
        ) from error
    if net.in_channels == 3 and description["dtype"] == "uint8":
        mean, std = (torch.tensor(description[key]).view(1, 3, 1, 1) / 255 for key in ("mean", "std"))
        own_mean, own_std = (torch.tensor(source.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        encoder.scale.copy_(std / own_std)
        encoder.shift.copy_((mean - own_mean) / own_std)
    return [name for name in net.state_dict() if name.startswith("encoder.")]


def weights_sha256(setting: Any) -> str | None:
    """Return the SHA-256 of the file of pretrained weights that ``model.encoder`` names; None without a file."""
    pretrained = split_encoder(setting)[1]
    if not isinstance(pretrained, str):
        return None
    with open(Path(pretrained).expanduser(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
