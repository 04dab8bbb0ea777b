"""Build a network whose initial weights depend on the seed and on the names of its modules alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from unet.network.model import UNet


def build_network(settings: Mapping[str, Any], seed: int) -> UNet:
    """Build a network, each of whose modules draws its weights from a generator seeded with ``seed`` and its name.

    Networks that differ in an operator are thus equal in all other modules, and in those inside of the operator that
    have the same name, type and shapes. Constructors run unchanged, so every module has the distributions it always
    has. The state of torch's generator is restored.

    A module has no name while it is constructed. So a network on the meta device is built first, whose modules are
    constructed in the same order.
    """
    modules: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), before_module_init(modules.append):
            names = {module: name for name, module in UNet(**settings).named_modules()}
        order = iter(modules)

        def seed_generator(_: nn.Module) -> None:
            name = names.get(next(order))
            if name is not None:  # else a temporary module, which belongs to the operator that was seeded before
                key = np.random.SeedSequence([seed, *name.encode()])
                torch.default_generator.manual_seed(int(key.generate_state(1)[0]))

        with before_module_init(seed_generator):
            return UNet(**settings)


@contextmanager
def before_module_init(call: Callable[[nn.Module], None]) -> Iterator[None]:
    """Call a function with each module that is constructed in this context, before it has parameters."""
    original = nn.Module.__init__

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        call(self)
        original(self, *args, **kwargs)

    nn.Module.__init__ = init
    try:
        yield
    finally:
        nn.Module.__init__ = original
