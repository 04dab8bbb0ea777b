"""Load a checkpoint without executing anything in it."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet.errors import UserError
from unet.inference.ensemble import make_ensemble
from unet.inference.segmenter import Segmenter
from unet.io.default_weights import checkpoint_path
from unet.io.plugins import load_plugins, missing_plugins, warn_about_changes
from unet.io.weights_file import SUFFIX, read_weights

EXPECTED = "expected a checkpoint of a training, such as outputs/.../checkpoints/best.ckpt"


def load(path: str | Path | Sequence[str | Path], plugins: Sequence[str] = ()) -> Segmenter:
    """Load a trained network from a checkpoint. No code in the file is executed.

    Args:
        path: the checkpoint, such as ``outputs/.../checkpoints/best.ckpt``; ``default`` for the network of the default
            training; or several, whose probabilities are averaged.
        plugins: Python files or packages with operators of the network, which are imported first. A checkpoint names
            those of its run, but only these are imported.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint of this project, or contains other objects than plain
            values and tensors; or a plugin cannot be imported.
    """
    load_plugins(plugins)
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise UserError(f"ckpt: an empty list; {EXPECTED}")
    paths = [checkpoint_path(one) for one in paths]
    models = [from_checkpoint(read_checkpoint(one), one) for one in paths]
    return models[0] if len(models) == 1 else make_ensemble(models, [str(one) for one in paths])


def from_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> Segmenter:
    """Build the trained network from the checkpoint that :func:`read_checkpoint` returned for ``path``."""
    plugins = recorded_plugins(checkpoint["description"])
    warn_about_changes(plugins, path)
    try:
        with torch.device("meta"):  # allocates nothing: a damaged description may ask for any amount
            check_shapes(Segmenter(checkpoint["description"]).state_dict(), checkpoint["state_dict"])
        model = Segmenter(checkpoint["description"])
        model.load_state_dict(checkpoint["state_dict"])
    except Exception as error:  # a damaged description may fail anywhere in the network
        line = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"no {error}" if isinstance(error, KeyError) else line
        if names := missing_plugins(plugins):
            text = f"its run had plugins=[{', '.join(names)}]: add them, if you trust them"
            raise UserError(f"{path}: {reason}; {text}") from None
        raise UserError(f"{path}: its weights do not fit its own description ({reason}); {EXPECTED}") from None
    tensors = [*model.named_parameters(), *model.named_buffers()]
    nonfinite = next((name for name, value in tensors if not torch.isfinite(value).all()), None)
    if nonfinite is not None:
        raise UserError(f"{path}: {nonfinite} holds NaN or infinite values; take an earlier checkpoint of the training")
    return model.eval()


def recorded_plugins(description: Any) -> dict[str, str]:
    """Return the SHA-256 of the plugins of a checkpoint's run by name; none of an older or damaged description."""
    plugins = description.get("plugins") if isinstance(description, Mapping) else None
    return {str(name): str(digest) for name, digest in plugins.items()} if isinstance(plugins, Mapping) else {}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the plain values and CPU tensors of a checkpoint; raise the errors of :func:`load`."""
    if Path(path).suffix == SUFFIX:
        return read_weights(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # reported below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: {error.strerror}; {EXPECTED}") from None
    except Exception as error:  # torch, zipfile and pickle raise errors of many types
        # Only the name from torch's message: the rest explains how to load the file regardless.
        match = re.search(r"GLOBAL (\S+)", str(error))
        name = f" (it names {match[1]})" if match else ""
        raise UserError(
            f"{path}: damaged, not a checkpoint, or with objects other than plain values and tensors, which could run "
            f"code and are not loaded{name}; {EXPECTED}"
        ) from None
    if not isinstance(checkpoint, dict) or not {"description", "state_dict"} <= checkpoint.keys():
        raise UserError(f"{path}: not a checkpoint of this project: it has no description of its network; {EXPECTED}")
    return checkpoint


def check_shapes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the name of the first weight that differs in name, shape or type from the expected ones."""
    for name in [*expected, *state]:
        if name not in state or name not in expected:
            raise ValueError(f"{name} is {'missing' if name not in state else 'unexpected'}")
        if expected[name].shape != state[name].shape:
            raise ValueError(f"{name} is {list(state[name].shape)} and not {list(expected[name].shape)}")
        if expected[name].is_floating_point() != state[name].is_floating_point():
            raise ValueError(f"{name} is {state[name].dtype} and not {expected[name].dtype}")
