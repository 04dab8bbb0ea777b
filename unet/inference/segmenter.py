"""Load a trained network and predict with it; needs torch alone, and no code in a checkpoint is executed."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Never

import torch
from torch import Tensor, nn

from unet.analysis.receptive_field import Field, receptive_fields
from unet.errors import UserError, did_you_mean
from unet.inference.predict import PredictOptions, predict_array
from unet.network.model import UNet


class Normalize(nn.Module):
    """Standardize each channel to zero mean and unit deviation. image (B, C, *S) of any dtype -> float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int):
        super().__init__()
        shape = (1, len(mean), *[1] * spatial_dims)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    def forward(self, image: Tensor) -> Tensor:
        return (image.float() - self.mean) / self.std


def adjust_logits(logits: Tensor, log_weights: Tensor) -> Tensor:
    """Subtract the log class weights (K,) from logits (B, K, *S).

    With class weights w the loss is minimal at probabilities proportional to w p. Dividing by w restores p, so that
    classes with large weights are not predicted too often. Source: Menon et al. 2021, Long-tail learning via logit
    adjustment, https://arxiv.org/abs/2007.07314.
    """
    return logits - log_weights.view(-1, *[1] * (logits.ndim - 2))


class Segmenter(nn.Module):
    """A trained network: image as stored (B, C, *S) -> logits (B, K, *S), the largest of which is the label.

    Args:
        description: the description in a checkpoint: ``model`` (the arguments of :class:`UNet`), ``classes``,
            ``colors``, ``mean`` and ``std`` per channel, ``log_weights``; and, except in older ones, ``dtype`` and
            ``range`` of the training images, ``eval_transforms``, ``eval_tile``, ``eval_overlap``, and the receptive
            ``field``.

    Attributes:
        net, normalize: modules with the names they have in training.
        classes, colors: names, and RGB values of 0 to 255.
    """

    log_weights: Tensor

    def __init__(self, description: dict[str, Any]):
        super().__init__()
        model = description["model"]
        self.description = description
        self.net = UNet(**model)
        self.normalize = Normalize(description["mean"], description["std"], model["spatial_dims"])
        self.classes: list[str] = description["classes"]
        self.colors: list[list[int]] = description["colors"]
        shift = description.get("log_weights") or [0.0] * len(self.classes)
        if not len(self.classes) == len(self.colors) == len(shift) == model["num_classes"]:
            raise UserError(
                f"{len(self.classes)} classes, {len(self.colors)} colours and {len(shift)} log weights for the "
                f"{model['num_classes']} logits of the network"
            )
        self.register_buffer("log_weights", torch.tensor(shift), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return adjust_logits(self.net(self.normalize(image)), self.log_weights)

    @cached_property
    def field(self) -> Field:
        """Return the receptive field of a logit along each axis, measured if the checkpoint does not record it."""
        known = self.description.get("field")
        return tuple(known) if known else receptive_fields(self.description["model"]).logits

    @property
    def eval_transforms(self) -> list[dict[str, Any]]:
        """Return the transforms of the evaluation; see :func:`unet.inference.preprocessing.apply_eval_transforms`."""
        return self.description.get("eval_transforms") or []

    def predict(
        self,
        image: Any,
        probabilities: bool = False,
        *,
        tile: Sequence[int] | None = None,
        overlap: float | None = None,
        tta: bool = False,
        batch: int = 1,
        precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
        transforms: bool = True,
        **unknown: Never,
    ) -> Any:
        """Return the labels of one image of any size; a large image is predicted in overlapping tiles.

        The labels are the same as those written by scripts/predict.py. A warning is issued if the image's values are
        unlikely to be in the units of the training images.

        Args:
            image: (*S) or (*S, C) as stored (8-bit, 16-bit or float), a numpy array or a tensor.
            probabilities: return (labels, probabilities) instead, the second (*S, K) float16.
            tile: size of a tile along each axis; None: ``data.eval_tile`` of the training, or about a million pixels.
            overlap: fraction of a tile that neighbours share; None: ``data.eval_overlap`` of the training if its tile
                is used, else the receptive field, at most half a tile.
            tta: average over flips, and for 2-D images over quarter turns as well.
            batch: tiles that go through the network together.
            precision: ``auto`` (bfloat16 if the hardware supports it natively), ``32-true`` or ``bf16-mixed``.
            transforms: whether the transforms of the evaluation (``data.eval_transforms``) are applied.

        Returns:
            labels (*S) uint8, a numpy array (a tensor if ``image`` is one).

        Raises:
            UserError: the network cannot take an image of this shape, number of channels or with these values.
            TypeError: an unknown option.
        """
        options = PredictOptions(tile, overlap, tta, batch, precision, transforms)
        for name in unknown:
            valid = [field.name for field in fields(options)]
            raise TypeError(f"predict: no option {name!r}{did_you_mean(name, valid)} (valid: {', '.join(valid)})")
        labels, scores = predict_array(self, image, options, probabilities)
        if not isinstance(image, Tensor):
            labels, scores = labels.numpy(), None if scores is None else scores.numpy()
        return (labels, scores) if probabilities else labels


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
