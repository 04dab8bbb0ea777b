"""Start a run from the weights of another one: copy every tensor of its network that fits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from unet.errors import UserError
from unet.inference.checkpoint import load
from unet.inference.segmenter import Segmenter
from unet.io.default_weights import checkpoint_path
from unet.io.run_folder import CONFIG, load_run_config
from unet.network.model import UNet

STEM, HEAD = "stem.0.0.weight", ("head.weight", "head.bias")
"""The tensors whose shapes follow from the number of channels and of classes."""
FEW = 0.5
"""A warning is printed if less than this fraction of the weights is loaded."""
MAX_NAMES = 6
DIVISION = {"splits": None, "group": None, "fold": None, "split_seed": 0}
"""The arguments of a data source that divide its images, and their values in the config of an older version."""


@dataclass(frozen=True)
class LoadedWeights:
    """What was loaded from a checkpoint.

    Attributes:
        total: the number of tensors of the new network.
        loaded: names of the tensors that were loaded, or adapted to the number of channels.
        new: names of the others, which keep their random values, with the reason if one is known.
        adapted: a note on the first convolution if its number of channels differs.
        fraction: the fraction of the weights that is loaded.
        changes: a note on every key of the model that differs.
    """

    path: Path
    total: int
    loaded: list[str]
    new: dict[str, str]
    adapted: str
    fraction: float
    changes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line: ``init: 61 of 63 tensors from X; new: head.weight (12 -> 2 classes), head.bias``."""
        items = list(self.new.items())
        reasons = {reason: name for name, reason in reversed(items)}  # a reason is given once
        names = [f"{name} ({reason})" if reason and reasons[reason] == name else name for name, reason in items]
        more = [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
        parts = [f"init: {len(self.loaded)} of {self.total} tensors from {self.path}"]
        parts += [f"adapted: {self.adapted}"] if self.adapted else []
        parts += [f"new: {', '.join(names[:MAX_NAMES] + more)}"] if names else []
        parts += [f"changed: {', '.join(self.changes)}"] if self.changes else []
        return "; ".join(parts)

    def warning(self) -> str:
        """Return a warning if few weights were loaded, else an empty string."""
        if self.fraction >= FEW:
            return ""
        return f"warning: init: only {self.fraction:.0%} of the weights are loaded, the others are random"


def read_initial_weights(path: str) -> Segmenter:
    """Read the network of a checkpoint. Raises UserError that names ``init``."""
    try:
        return load(path)
    except UserError as error:
        raise UserError(f"init={error}") from None


def load_initial_weights(net: UNet, classes: Sequence[str], source: Segmenter, path: str) -> LoadedWeights:
    """Copy every tensor of ``source`` whose name and shape fit into ``net``, batch norm's statistics included.

    The first convolution is adapted to another number of channels by :func:`adapt_channels`. The rows of the head are
    copied for classes of the same name. A network on the meta device is only checked.

    Raises:
        UserError: the networks differ in the number of axes or in ``model.width``.
    """
    old: Any = source.net
    check_comparable(net, old, path)
    state = old.state_dict()
    loaded, new, adapted = [], {}, ""
    sizes = {True: 0, False: 0}
    for name, tensor in net.state_dict().items():
        value, reason = state.get(name), ""
        if value is not None and name in HEAD:
            value, reason = match_classes(tensor, value, classes, source.classes)
        elif value is not None and name == STEM and value.shape[1] != tensor.shape[1]:
            adapted = f"{name} ({value.shape[1]} -> {tensor.shape[1]} channels)"
            value = adapt_channels(value, tensor.shape[1])
        fits = value is not None and value.shape == tensor.shape
        if fits:
            with torch.no_grad():
                tensor.copy_(value)
        if fits and not reason:
            loaded.append(name)
        else:
            new[name] = reason
        sizes[fits and not reason] += tensor.numel()
    changes = model_changes(old, net)
    fraction = sizes[True] / sum(sizes.values())
    return LoadedWeights(Path(path), len(net.state_dict()), loaded, new, adapted, fraction, changes)


def leakage_warning(path: str, config: DictConfig) -> str:
    """Return a warning if the run of a checkpoint was trained on this data set in another division, else "".

    Images that are evaluated here may then be among those that it was trained on.
    """
    folder = checkpoint_path(path).resolve().parent.parent
    if not (folder / CONFIG).is_file():
        return ""
    before, now = (OmegaConf.to_container(run.data.source, resolve=True) for run in (load_run_config(folder), config))
    assert isinstance(before, dict) and isinstance(now, dict)
    roots = [Path(str(source.get("root"))).expanduser().resolve() for source in (before, now)]
    changed = [key for key, default in DIVISION.items() if before.get(key, default) != now.get(key, default)]
    if roots[0] != roots[1] or before["_target_"] != now["_target_"] or not changed:
        return ""
    images = now.get("root", config.data.name)
    return (
        f"warning: init: its run divided the images of {images} in another way (data.source.{changed[0]}), so it may "
        f"have been trained on images that are evaluated here, and metrics may be too high"
    )


def check_comparable(net: UNet, old: UNet, path: str) -> None:
    """Raise UserError unless the networks have the same number of axes and the same widths on their common levels."""
    if old.spatial_dims != net.spatial_dims:
        raise UserError(
            f"init={path}: its network has {old.spatial_dims} spatial axes, the data have {net.spatial_dims}; choose a "
            f"checkpoint of data with {net.spatial_dims} axes"
        )
    common = min(len(old.widths), len(net.widths))
    if old.widths[:common] != net.widths[:common]:
        raise UserError(
            f"init={path}: its network has model.width={old.widths[0]} ({old.widths} by level), this one has "
            f"model.width={net.widths[0]} ({net.widths}), so its weights do not fit; use the width of that network"
        )


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weight of a first convolution (W, C, *K) for another number of channels (W, ``channels``, *K).

    Images are standardized, so all channels have one scale. To one channel, the channels are summed, which is C times
    their average: a grey image gets the response that it had as RGB. To several, they are repeated in turn and scaled
    by C / ``channels``: 1 -> 3 gives a grey image in RGB its response, 3 -> 4 is R, G, B, R times 3/4. This is the rule
    of timm and segmentation_models.pytorch.
    """
    old = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [channel % old for channel in range(channels)]] * (old / channels)


def match_classes(
    tensor: Tensor, old: Tensor, classes: Sequence[str], old_classes: Sequence[str]
) -> tuple[Tensor, str]:
    """Return the head's tensor (K, ...) with the rows of classes in both networks, and what is new in it."""
    rows = [(classes.index(name), old_classes.index(name)) for name in classes if name in old_classes]
    if len(rows) == len(classes):
        return old[[row for _, row in rows]], ""
    reason = f"{len(old_classes)} -> {len(classes)} classes"
    if not rows:
        return tensor, reason
    value = tensor.clone()
    if not value.is_meta:
        for row, old_row in rows:
            value[row] = old[old_row]
    return value, f"{reason}, of which {', '.join(classes[row] for row, _ in rows)} loaded"


def model_changes(old: UNet, net: UNet) -> list[str]:
    """Return the settings that differ and change the output of a network, but not the shape of a tensor."""
    values = {key: (getattr(old, key), getattr(net, key)) for key in ("act", "norm")}
    return [f"model.{key} ({before} -> {after})" for key, (before, after) in values.items() if before != after]
