"""Load a checkpoint without executing anything in it."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.inference.segmenter import Segmenter

EXPECTED = "expected a checkpoint of a training, such as outputs/.../checkpoints/best.ckpt"


def load(path: str | Path) -> Segmenter:
    """Load the trained network of a checkpoint, in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, holds code, or was not written by this project.
    """
    return from_checkpoint(read_checkpoint(path), path)


def from_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> Segmenter:
    """Build the trained network from the result of :func:`read_checkpoint` for ``path``."""
    try:
        with torch.device("meta"):  # allocates nothing: a damaged description may ask for any amount
            check_shapes(Segmenter(checkpoint["description"]).state_dict(), checkpoint["state_dict"])
        model = Segmenter(checkpoint["description"])
        model.load_state_dict(checkpoint["state_dict"])
    except Exception as error:  # a damaged description may fail anywhere in the network
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"no {error}" if isinstance(error, KeyError) else first
        raise UserError(f"{path}: its weights do not fit its own description ({reason}); {EXPECTED}") from None
    tensors = [*model.named_parameters(), *model.named_buffers()]
    broken = next((name for name, value in tensors if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise UserError(f"{path}: {broken} holds NaN or infinite values; take an earlier checkpoint of the training")
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project: plain values and tensors, on the CPU. Raises as :func:`load` does."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # reported below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: {error.strerror}; {EXPECTED}") from None
    except Exception as error:  # torch, zipfile and pickle raise errors of many types
        # Only the name from torch's message, which goes on with how to load the file regardless.
        match = re.search(r"GLOBAL (\S+)", str(error))
        name = f" (it names {match[1]})" if match else ""
        raise UserError(
            f"{path}: damaged, no checkpoint, or one that holds more than plain values and tensors, which could run "
            f"code and is not loaded{name}; {EXPECTED}"
        ) from None
    if not isinstance(checkpoint, dict) or not {"description", "state_dict"} <= checkpoint.keys():
        raise UserError(f"{path}: not a checkpoint of this project: it has no description of its network; {EXPECTED}")
    return checkpoint


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first of them, unless weights have the names and shapes they should have."""
    for name in [*expected, *found]:
        if name not in found or name not in expected:
            raise ValueError(f"{name} is {'missing' if name not in found else 'one too many'}")
        if expected[name].shape != found[name].shape:
            raise ValueError(f"{name} is {list(found[name].shape)} and not {list(expected[name].shape)}")
        if expected[name].is_floating_point() != found[name].is_floating_point():
            raise ValueError(f"{name} is {found[name].dtype} and not {expected[name].dtype}")
