"""Freeze parts of a network, and group its parameters by learning rate."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from unet.errors import UserError
from unet.network.encoders import TimmEncoder
from unet.network.model import UNet
from unet.task.optimizers import is_kernel

PARTS = {
    "encoder": ("stem", "downs", "encoder"),
    "context": ("context",),
    "decoder": ("ups", "joins", "decoder"),
    "head": ("head", "coarse_heads"),
}
"""The parts of a :class:`unet.network.model.UNet` by their names in ``optim.freeze``, and the modules of each."""


def freeze_parts(net: nn.Module, parts: Sequence[str] | None) -> list[nn.Module]:
    """Freeze the parameters of parts of a network and return the modules of these parts.

    Raises:
        UserError: no parameter remains to be trained.
    """
    modules = [net.get_submodule(name) for part in parts or () for name in part_modules(net, part)]
    for module in modules:
        module.requires_grad_(False)
    if modules and not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"optim.freeze=[{','.join(parts or ())}]: no weight remains to be trained; leave a part out")
    return modules


def part_modules(net: nn.Module, part: str) -> tuple[str, ...]:
    """Return the modules of a part; the stem, which has no pretrained weights, is not part of an encoder of timm."""
    return ("encoder",) if part == "encoder" and isinstance(net.encoder, TimmEncoder) else PARTS[part]


def check_frozen_are_loaded(net: nn.Module, parts: Sequence[str] | None, new: Collection[str]) -> None:
    """Raise UserError if a frozen part has a tensor among the ``new`` ones, which would stay random."""
    for part in parts or ():
        names = [name for name in new if name.startswith(tuple(f"{module}." for module in part_modules(net, part)))]
        if names:
            raise UserError(
                f"optim.freeze=[{','.join(parts or ())}]: {names[0]} is not loaded by init and would stay random; "
                f"leave {part} out"
            )


def parameter_groups(
    net: UNet, lr: float, factor: float | None, loaded: Collection[str], separate_kernels: bool = False
) -> list[dict[str, Any]]:
    """Return the trained parameters as groups for an optimizer.

    With ``factor`` the ``loaded`` parameters have ``factor * lr``, the others ``lr``. With ``separate_kernels`` the
    kernels of convolutions, see :func:`unet.task.optimizers.is_kernel`, are groups with ``"kernels": True``.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            key = (factor is not None and name in loaded, separate_kernels and is_kernel(net, name))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * factor if factor is not None and is_loaded else lr,
            "name": ("loaded" if is_loaded else "new") + (" kernels" if are_kernels else ""),
            "kernels": are_kernels,
        }
        for (is_loaded, are_kernels), parameters in groups.items()
    ]
