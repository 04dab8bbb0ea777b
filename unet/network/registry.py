"""The registries of operators, ``DOWN``, ``UP`` and ``CONTEXT``, and the signatures of their operators.

``*S`` are 1, 2 or 3 spatial axes, and ``r`` is the stride of the stage: a tuple with one integer per axis.

======== ======================================================== ==================================================
registry factory                                                  forward
======== ======================================================== ==================================================
DOWN     (channels, spatial_dims, stride, **options)              x (B, C, *rS) -> (B, C, *S)
UP       (in_channels, out_channels, spatial_dims, stride, ...)   x (B, Cin, *S), skip (B, Cout, *rS) -> (B, Cout, *rS)
CONTEXT  (channels, spatial_dims, **options)                      x (B, C, *S) -> (B, C, *S)
======== ======================================================== ==================================================

A down operator keeps the number of channels; an up operator changes it from ``Cin`` to ``Cout``. The network pads its
input so that the input size of every operator is divisible by the stride.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

from unet.errors import UserError, did_you_mean

T = TypeVar("T", bound=type[nn.Module])

Spec = str | Mapping[str, Any]
"""The specification of an operator: its name, or ``{"name": ..., option: value, ...}``."""


class Registry(Mapping[str, type[nn.Module]]):
    """A mapping of names to operators of one kind, which is also the config key (``model.<kind>``).

    Iteration yields the names; lookup also accepts aliases such as ``bilinear``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._classes: dict[str, type[nn.Module]] = {}
        self.aliases: dict[str, str] = {}  # alias -> name

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Return a class decorator that adds an operator; it raises ValueError if a name is already registered."""

        def add(cls: T) -> T:
            for key in (name, *aliases):
                if key in self:
                    raise ValueError(f"{self.kind} operator {key!r} is registered twice")
            self._classes[name] = cls
            self.aliases |= dict.fromkeys(aliases, name)
            return cls

        return add

    def build(self, spec: Spec, /, shared: Mapping[str, Any], **arguments: Any) -> nn.Module:
        """Build an operator.

        Args:
            shared: settings of the network (norm, act) that are passed if the operator has an argument of that name.
            **arguments: the arguments of every operator of this kind (channels, stride, ...).

        Raises:
            UserError: the name or an option is unknown; the message lists the valid ones.
        """
        options = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise UserError(f"model.{self.kind}: expected a name or {{name: ..., option: ...}}, found {spec!r}")
        if name not in self:
            raise UserError(
                f"model.{self.kind}: unknown operator {name!r}{did_you_mean(name, [*self._classes, *self.aliases])}"
                f" (valid: {', '.join(self._classes)})"
            )
        cls = self[name]
        parameters = inspect.signature(cls).parameters
        valid = [option for option in parameters if option not in arguments]
        for option in options:
            if option not in valid:
                raise UserError(
                    f"model.{self.kind}={name}: no option {option!r}{did_you_mean(option, valid)}"
                    f" (valid: {', '.join(valid) or 'none'})"
                )
        inherited = {key: value for key, value in shared.items() if key in parameters}
        return cls(**arguments, **(inherited | options))

    def __getitem__(self, name: str) -> type[nn.Module]:
        return self._classes[self.aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


DOWN = Registry("down")
"""The downsampling operators by name, values of ``model.down``. x (B, C, *rS) -> (B, C, *S)."""
UP = Registry("up")
"""The upsampling operators by name, values of ``model.up``. x (B, Cin, *S), skip (B, Cout, *rS) -> (B, Cout, *rS)."""
CONTEXT = Registry("context")
"""The modules for the bottleneck by name, values of ``model.context``. x (B, C, *S) -> (B, C, *S)."""


def operator_name(module: nn.Module) -> str | None:
    """Return the name of an operator in its registry; None for any other module."""
    tables = (DOWN, UP, CONTEXT)
    return next((name for table in tables for name, cls in table.items() if type(module) is cls), None)
