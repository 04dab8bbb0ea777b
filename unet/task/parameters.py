"""Freeze parts of a network, and group its parameters by learning rate."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from unet.errors import UserError

PARTS = {
    "encoder": ("stem", "downs", "encoder"),
    "context": ("context",),
    "decoder": ("ups", "decoder"),
    "head": ("head",),
}
"""The parts of a :class:`unet.network.model.UNet` by their names in ``optim.freeze``, and the modules of each."""


def freeze_parts(net: nn.Module, parts: Sequence[str] | None) -> list[nn.Module]:
    """Freeze the parameters of parts of a network and return the modules of these parts.

    Raises:
        UserError: no parameter remains to be trained.
    """
    modules = [net.get_submodule(name) for part in parts or () for name in PARTS[part]]
    for module in modules:
        module.requires_grad_(False)
    if modules and not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"optim.freeze=[{','.join(parts or ())}]: no weight remains to be trained; leave a part out")
    return modules


def check_frozen_are_loaded(net: nn.Module, parts: Sequence[str] | None, new: Collection[str]) -> None:
    """Raise UserError if a frozen part has a tensor among the ``new`` ones, which would stay random."""
    for part in parts or ():
        names = [name for name in new if name.startswith(tuple(f"{module}." for module in PARTS[part]))]
        if names:
            raise UserError(
                f"optim.freeze=[{','.join(parts or ())}]: {names[0]} is not loaded by init and would stay random; "
                f"leave {part} out"
            )


def parameter_groups(net: nn.Module, lr: float, factor: float | None, loaded: Collection[str]) -> list[dict[str, Any]]:
    """Return the trained parameters as groups for an optimizer.

    With ``factor`` the ``loaded`` parameters are a group with ``factor * lr``, the others one with ``lr``.
    """
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    if factor is None:
        return [{"params": list(trained.values())}]
    new = [parameter for name, parameter in trained.items() if name not in loaded]
    old = [parameter for name, parameter in trained.items() if name in loaded]
    groups = [{"params": new, "lr": lr, "name": "new"}, {"params": old, "lr": factor * lr, "name": "loaded"}]
    return [group for group in groups if group["params"]]
