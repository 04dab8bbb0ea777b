"""The one or two trained networks of a page, with names to tell them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from unet import UNet, load
from unet.errors import UserError
from unet.hardware import channels_last, lay
from unet.record import CHECKPOINTS
from unet.segmenter import Segmenter

LETTERS = "AB"
DIMENSIONS = {1: "sequences", 3: "volumes"}


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes:
        letter: what the page calls it.
        name: its run's folder and its file, no path.
    """

    letter: str
    name: str
    path: Path
    model: Segmenter

    def operator(self, kind: str) -> str:
        """What the config says of ``down`` or ``up``, as a person would write it."""
        default = signature(UNet).parameters[kind].default
        return spelled(self.model.description["model"].get(kind, default))


def spelled(spec: str | Mapping[str, Any] | Sequence[Any]) -> str:
    """An operator of a config in words.

    >>> spelled([{"name": "max", "kernel_size": 3}, "strided"])
    'max (kernel_size 3), strided'
    """
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Mapping):
        options = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "name")
        return f"{spec['name']} ({options})" if options else str(spec["name"])
    return ", ".join(spelled(one) for one in spec)


def name_of(path: Path) -> str:
    """``outputs/RUN/checkpoints/best.ckpt`` -> ``RUN/best.ckpt``."""
    run = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
    return "/".join(filter(None, [run.name, path.name]))


def networks_of(paths: Sequence[Path], device: str) -> list[Network]:
    """The networks of one or two checkpoints, on ``device``.

    Raises:
        UserError: a file that is no checkpoint, a network not of pictures, two that do not know the same classes.
    """
    if not 1 <= len(paths) <= len(LETTERS):
        raise UserError(f"ckpt: expected one checkpoint or two, found {len(paths)}")
    found = []
    for letter, path in zip(LETTERS, paths, strict=False):
        model = load(path).to(device)
        axes = model.net.spatial_dims
        if axes != 2:
            raise UserError(
                f"{path}: a network of {DIMENSIONS[axes]}, and the page shows pictures; use python scripts/predict.py"
            )
        lay(model, channels_last)
        found.append(Network(letter, name_of(path.resolve()), path, model))
    first, last = found[0], found[-1]
    if first.model.classes != last.model.classes:
        raise UserError(
            f"{last.path} was trained for the classes {', '.join(last.model.classes)}, but {first.path} for "
            f"{', '.join(first.model.classes)}; the page compares networks of the same classes, in the same order"
        )
    return found
