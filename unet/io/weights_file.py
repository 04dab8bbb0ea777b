"""Weights in a safetensors file, with the description of their network: small, and readable by other programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.io.atomic import atomic_write

SUFFIX = ".safetensors"
DESCRIPTION = "description"
"""The entry of the file's metadata that holds the description as JSON."""


def write_weights(
    path: Path, state: Mapping[str, Tensor], description: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write the tensors of a network, floating-point ones as ``dtype``, and the description of a checkpoint."""
    from safetensors.torch import save

    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    with atomic_write(path) as file:
        file.write(save(tensors, {DESCRIPTION: json.dumps(description), "format": "pt"}))


def read_weights(path: str | Path) -> dict[str, Any]:
    """Return the ``description`` and the ``state_dict`` of a file, floating-point tensors as float32.

    Raises:
        UserError: the file is missing or damaged, or has no description of its network.
    """
    from safetensors import SafetensorError, safe_open

    expected = "expected the weights that scripts/maintain/publish.py writes"
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {expected}")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get(DESCRIPTION, "null"))
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); {expected}") from None
    if not isinstance(description, dict):
        raise UserError(f"{path}: has no description of its network; {expected}")
    return {
        "description": description,
        "state_dict": {name: t.float() if t.is_floating_point() else t for name, t in state.items()},
    }
